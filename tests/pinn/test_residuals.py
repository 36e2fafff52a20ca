"""Residuals and their Jacobian: constants, unknown functions, periodic sides, measurements."""

import torch

from bayesdd import pinn
from bayesdd.networks.mlp import Network
from bayesdd.pinn.residuals import Networks, linearised, residuals
from bayesdd.pinn.terms import condition_terms, equation_term, field_term, sobol

PROBLEM = pinn.Problem(
    inputs={"x": (0.0, 1.0), "t": (0.0, 2.0)},
    outputs=("u", "v"),
    equation=lambda s, p: (s.u_t - p.k * s.u_xx - p.q_x * s.v, s.v_xt + s.u**2 - p.c),
    conditions=[
        pinn.at(t=0.0, u=lambda s, p: p.k * s.x, v_t=lambda s, p: s.u),
        pinn.at(x=(0.0, 1.0), u=pinn.periodic, u_x=pinn.periodic, v=2.0),
    ],
    constants={"c": 0.5},
    unknown={"q": pinn.function("x"), "k": (1.0, 0.2)},
)
NETS = Networks(
    PROBLEM,
    Network((0.5, 1.0), (0.5, 1.0), (4, 3), outputs=((0.0, 1.0), (1.0, 2.0))),
    {"q": Network((0.5,), (0.5,), (3,), outputs=((0.0, 0.5),))},
)
POINTS = sobol(PROBLEM.ranges, 5, 0)
TERMS = [
    field_term(PROBLEM, ["v"], POINTS, torch.arange(5.0, dtype=torch.float64)[:, None]),
    equation_term(PROBLEM, POINTS),
    *(term for at, condition in enumerate(PROBLEM.conditions) for term in condition_terms(PROBLEM, condition, at, 0.1)),
]
THETA = torch.randn(3, NETS.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_jacobian_is_that_of_finite_differences():
    step = torch.randn(3, NETS.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values, slopes = linearised(NETS, TERMS, THETA)
    size = 1e-5
    ahead, behind = (residuals(NETS, TERMS, THETA + sign * size * step) for sign in (1, -1))
    assert len(values) == 1 + 2 + 2 + 2 + 1 + 1
    for value, slope, after, before in zip(values, slopes, ahead, behind, strict=True):
        torch.testing.assert_close(
            (slope @ step[..., None])[..., 0], (after - before) / (2 * size), rtol=1e-6, atol=1e-6
        )
        assert value.shape == slope.shape[:2]


def test_a_periodic_side_is_the_difference_of_two_values():
    terms = condition_terms(PROBLEM, PROBLEM.conditions[1], 7)
    both = next(term for term in terms if term.twin)
    left, right = (
        field_term(PROBLEM, ["u"], {**both.points, "x": torch.full_like(both.points["x"], x)}) for x in (0, 1)
    )
    (at_left,), (at_right,) = residuals(NETS, [left], THETA), residuals(NETS, [right], THETA)
    torch.testing.assert_close(residuals(NETS, [both], THETA)[0], at_left - at_right)


def test_measurements_are_compared_and_constants_are_in_their_own_units():
    (v,) = residuals(NETS, [field_term(PROBLEM, ["v"], POINTS)], THETA)
    torch.testing.assert_close(residuals(NETS, TERMS[:1], THETA)[0], v - torch.arange(5.0).double())
    torch.testing.assert_close(NETS.constants(THETA)["k"], 1.0 + 0.2 * THETA[:, -1])
