"""Conditions that fix one field twice: alike is accepted, otherwise refused, or said where they only meet."""

import math

import pytest
import torch

from bayesdd import pinn
from bayesdd.numerics.refusal import Refusal
from bayesdd.pinn.fixed import jumps


def heat(*conditions, **changed):
    given = {
        "inputs": {"x": (0.0, 1.0), "t": (0.0, 2.0)},
        "parameters": {"a": (0.5, 1.5)},
        "outputs": ("u", "v"),
        "equation": lambda s, p: (s.u_t - p.k * s.u_xx, s.v_t - s.u),
        "constants": {"k": 0.1, "edge": 2.0},
    }
    return pinn.Problem(conditions=conditions, **given | changed)


def free(s, p):
    return p.h * s.u


CONTRADICTIONS = {
    "numbers": [pinn.at(t=0.0, u=1.0), pinn.at(t=0.0, u=2.0)],
    "a function and a number": [pinn.at(t=0.0, u=lambda s, p: s.a * s.x), pinn.at(t=0, u=0.0, v=1.0)],
    "a known constant": [pinn.at(x=0.0, u=lambda s, p: p.edge), pinn.at(x=0.0, u=1.0)],
    "one side of two": [pinn.at(x=(0.0, 1.0), u=0.0), pinn.at(x=1.0, u=0.5)],
    "a point of a side": [pinn.at(x=0.0, u=0.0), pinn.at(x=0.0, t=2.0, u=1.0)],
    "mixed derivatives": [pinn.at(t=0.0, u_xt=0.0), pinn.at(t=0.0, u_tx=1.0)],
    "everywhere and somewhere": [pinn.at(u=0.0), pinn.at(x=0.5, u=1.0)],
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_one_place_two_values(name):
    with pytest.raises(Refusal, match="to different values at the same place") as caught:
        heat(*CONTRADICTIONS[name])
    assert "\n" not in str(caught.value)
    with pytest.raises(Refusal, match="at the same place"):
        heat(*reversed(CONTRADICTIONS[name]))


ALIKE = {
    "the same twice": [pinn.at(t=0.0, u=1.0), pinn.at(t=0.0, u=lambda s, p: 1.0, v=0.0)],
    "up to rounding": [pinn.at(t=0.0, u=lambda s, p: torch.sin(math.pi * s.x)), pinn.at(x=(0.0, 1.0), u=0.0)],
    "a field and its slope": [pinn.at(x=0.0, u=1.0), pinn.at(x=0.0, u_x=0.0)],
    "two fields": [pinn.at(x=0.0, u=1.0), pinn.at(x=0.0, v=0.0)],
    "two places": [pinn.at(x=0.0, u=1.0), pinn.at(x=1.0, u=0.0)],
    "sides that agree": [pinn.at(x=(0.0, 1.0), u=pinn.periodic), pinn.at(x=0.0, u=1.0)],
    "by a field": [pinn.at(x=0.0, u_x=lambda s, p: 2.0 * s.u), pinn.at(x=0.0, u_x=lambda s, p: 3.0 * s.u)],
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_does_not_contradict(name):
    assert jumps(heat(*ALIKE[name])) == []


def test_values_that_need_an_unknown_are_not_compared():
    heat(pinn.at(x=0.0, u_x=free), pinn.at(x=0.0, u_x=0.0), unknown={"h": (1.0, 1.0)})


def test_corners_are_said():
    (said,) = jumps(heat(pinn.at(t=0.0, u=lambda s, p: 1.0 + s.a * s.x), pinn.at(x=(0.0, 1.0), u=1.0)))
    assert "x=(0.0, 1.0)" in said and "where they meet" in said
    (said,) = jumps(heat(pinn.at(t=0.0, u=0.0), pinn.at(x=0.0, u=1.0)))
    assert "fix 'u' to 0 and 1 where they meet" in said
    decayed = pinn.at(t=0.0, u=lambda s, p: torch.exp(-100 * (s.x - 0.5) ** 2))
    assert jumps(heat(decayed, pinn.at(x=(0.0, 1.0), u=0.0))) == []


def test_a_fit_warns_of_a_corner():
    problem = heat(
        pinn.at(t=0.0, u=0.0),
        pinn.at(x=0.0, u=1.0),
        outputs=("u",),
        equation=lambda s, p: s.u_t - p.k * s.u_xx,
    )
    with pytest.warns(pinn.FitWarning) as said:
        pinn.fit(problem, hidden=(4,), modes=1, steps=2, points=32)
    assert any("fix 'u' to 0 and 1 where they meet" in str(one.message) for one in said)
