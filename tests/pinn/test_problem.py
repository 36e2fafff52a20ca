"""Problems as mathematics: what is written is read, and every mistake is named in one line."""

import math

import pytest
import torch

from bayesdd import pinn
from bayesdd.numerics.refusal import Refusal, WrongType


def make(**changed):
    given = {
        "inputs": {"x": (0.0, 1.0), "t": (0.0, 2.0)},
        "parameters": {"alpha": (0.5, 1.5)},
        "outputs": ("u", "v"),
        "equation": lambda s, p: (s.u_t - p.k * s.u_xx, s.v_xt - s.u * p.q),
        "conditions": [pinn.at(t=0.0, u=lambda s, p: s.alpha * s.x, v=1.0), pinn.at(x=(0.0, 1.0), u=pinn.periodic)],
        "constants": {"k": 0.1},
        "unknown": {"q": pinn.function("x")},
    }
    return pinn.Problem(**{**given, **changed})


def test_what_an_equation_uses():
    problem = make()
    assert problem.asked.by_name == {"u": {(0, 1, 0), (2, 0, 0), (0, 0, 0)}, "v": {(1, 1, 0)}, "q": {(0, 0, 0)}}
    assert problem.order == 2 and problem.equations == 2
    assert problem.evolves == "t"
    assert make(conditions=[pinn.at(x=0.0, u=0.0, v=0.0), pinn.at(x=1.0, u_x=0.0)]).evolves is None


def test_long_names_of_inputs():
    problem = pinn.Problem(
        inputs={"t": (0.0, 1.0), "theta": (0.0, 1.0)},
        outputs=("u_1",),
        equation=lambda s, p: s.u_1_theta_t + s.u_1_tt,
        conditions=[pinn.at(t=0.0, u_1=0.0)],
    )
    assert problem.asked.fields == {(1, 1), (2, 0)}


MISTAKES = {
    r"one number a point, a float64 tensor of shape \(6,\).*got \(6, 1\)": {
        "equation": lambda s, p: (s.u_t * p.k * p.q)[:, None]
    },
    r"got float in place 1": {"equation": lambda s, p: (s.u_t - p.k * p.q, 1.0)},
    r"s has no 'w_t': the fields are \['u', 'v'\]": {"equation": lambda s, p: s.w_t - p.q},
    r"s has no 'u_z'": {"equation": lambda s, p: s.u_z - p.q},
    r"p has no 'g', only \['k', 'q'\]": {"equation": lambda s, p: s.u_t - p.g - p.q},
    r"p has no 'q_t'": {"equation": lambda s, p: s.u_t - p.q_t},
    r"depends on the other points": {"equation": lambda s, p: s.u_t - s.u.mean() * p.q},
    r"uses none of the outputs": {"equation": lambda s, p: s.x * p.q},
    r"fails at made-up points: ZeroDivisionError": {"equation": lambda s, p: s.u_t / 0 if 1 / 0 else p.q},
    r"'t' runs from 0 to 2, got 3.0": {"conditions": [pinn.at(t=3.0, u=0.0)]},
    r"s has no 'w'": {"conditions": [pinn.at(t=0.0, w=0.0)]},
    r"fixes no field": {"conditions": [pinn.at(t=0.0)]},
    r"needs one pair of sides": {"conditions": [pinn.at(x=0.0, u=pinn.periodic)]},
    r"must be one number a point": {"conditions": [pinn.at(t=0.0, u=lambda s, p: s.x[:, None])]},
    r"needs a range \(low, high\)": {"inputs": {"x": (1.0, 0.0), "t": (0.0, 2.0)}},
    r"'k' stands in constants= and in unknown=": {"unknown": {"q": pinn.function("x"), "k": (1.0, 1.0)}},
    r"the unknown 'c' stands in no equation": {"unknown": {"q": pinn.function("x"), "c": (1.0, 1.0)}},
    r"needs \(mean, sd\) of a normal prior": {"unknown": {"q": (1.0, -1.0)}},
    r"'z' is none": {"unknown": {"q": pinn.function("z")}},
    r"got torch.complex128": {"equation": lambda s, p: (s.u_t - p.q) * 1j},
    r"got torch.float32": {"equation": lambda s, p: (s.u_t - p.q).float()},
    r"reads 'u_t', but nothing that it returns has a slope": {"equation": lambda s, p: s.u_t.detach() + p.q * s.v},
    r"fails at made-up points: RuntimeError: Can't call numpy": {"equation": lambda s, p: s.u_t.numpy() + p.q},
    r"needs a finite number, a function of s and p.* got nan": {"conditions": [pinn.at(t=0.0, u=math.nan)]},
    r"is not finite in the domain": {"conditions": [pinn.at(t=0.0, u=lambda s, p: torch.log(-s.x))]},
    r"says that 'u' is itself": {"conditions": [pinn.at(t=0.0, u=lambda s, p: s.u)]},
    r"both sides of 'x' are 1": {"conditions": [pinn.at(x=(1.0, 1.0), u=0.0)]},
    r"needs those that pinn.at\(...\) makes, got \{'t'": {"conditions": [{"t": 0.0, "u": 0.0}]},
    r"needs values by name, such as .* got \['x'\]": {"inputs": ["x"]},
    r"outputs= needs names, such as \('u',\), got 3": {"outputs": 3},
    r"outputs=\{'u': ...\} needs a range": {"outputs": {"u": (1.0, 0.0), "v": (0.0, 1.0)}},
    r"constants=\{'k': ...\} needs a finite number, got nan": {"constants": {"k": math.nan}},
    r"'u_t' in inputs= reads as a derivative": {"inputs": {"x": (0.0, 1.0), "t": (0.0, 2.0), "u_t": (0.0, 1.0)}},
    r"names '_a', which cannot stand behind a dot": {"parameters": {"_a": (0.0, 1.0)}},
    r"exact= one of s, got float": {"exact": 3.0},
}


@pytest.mark.parametrize("said", MISTAKES)
def test_mistakes_are_named_in_one_line(said):
    with pytest.raises((Refusal, WrongType), match=said) as caught:
        make(**MISTAKES[said])
    assert "\n" not in str(caught.value)


def test_a_reference_is_checked():
    problem = make(exact=lambda s: (s.x, s.t))
    points = {name: torch.full((3,), 0.7, dtype=torch.float64) for name in problem.ranges}
    assert torch.equal(problem.reference(points)["v"], points["t"])
    with pytest.raises(Refusal, match=r"must give 2 arrays of shape \(3,\)"):
        make(exact=lambda s: s.x).reference(points)
    with pytest.raises(Refusal, match=r"exact= asks for s.u"):
        make(exact=lambda s: (s.u, s.x)).reference(points)
    with pytest.raises(Refusal, match="exact= fails: ZeroDivisionError"):
        make(exact=lambda s: 1 / 0).reference(points)
    with pytest.raises(Refusal, match="its solver has failed there"):
        make(exact=lambda s: (s.x * torch.inf, s.t)).reference(points)
