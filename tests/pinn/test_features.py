"""Features that are added to fields: their derivatives in the inputs, and those of residuals in what they add."""

from dataclasses import replace

import torch

from bayesdd import pinn
from bayesdd.networks.mlp import Network
from bayesdd.pinn.features import Features
from bayesdd.pinn.residuals import Evaluation, Networks, residuals
from bayesdd.pinn.terms import condition_terms, equation_term, field_term, sobol

PROBLEM = pinn.Problem(
    inputs={"x": (0.0, 1.0), "t": (0.0, 2.0)},
    outputs=("u", "v"),
    equation=lambda s, p: (s.u_t - s.u_xx - p.q_x * s.v, s.v_xt + s.u**2),
    conditions=[
        pinn.at(t=0.0, u=lambda s, p: s.x, v_t=lambda s, p: s.u),
        pinn.at(x=(0.0, 1.0), u=pinn.periodic, u_x=pinn.periodic, v=2.0),
    ],
    unknown={"q": pinn.function("x")},
)
BARE = Networks(
    PROBLEM,
    Network((0.5, 1.0), (0.5, 1.0), (4,), outputs=((0.0, 1.0), (1.0, 2.0))),
    {"q": Network((0.5,), (0.5,), (3,), outputs=((0.0, 0.5),))},
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


NETS = replace(BARE, anchor=normal(3, BARE.dim))
FEATURES = Features.drawn(NETS.fields, 3, 5, torch.Generator().manual_seed(1))
POINTS = sobol(PROBLEM.ranges, 6, 0)
TERMS = [
    equation_term(PROBLEM, POINTS),
    *(term for at, condition in enumerate(PROBLEM.conditions) for term in condition_terms(PROBLEM, condition, at, 0.1)),
]
THETA = 0.1 * normal(3, NETS.dim, seed=2)


def added(out):
    return replace(NETS, added=replace(FEATURES, out=out))


def test_fields_and_their_derivatives_gain_those_of_the_sum_of_features():
    out = normal(3, 5, 2, seed=3)
    x, t = (POINTS[name].clone().requires_grad_(True) for name in "xt")
    hidden = torch.tanh(torch.stack([2 * x - 1, t - 1], 1) @ FEATURES.weight + FEATURES.bias)
    u = hidden @ out[0, :, 0]
    (u_x,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (u_xt,) = torch.autograd.grad(u_x.sum(), t)
    term = field_term(PROBLEM, ["u", "u_x", "u_xt", "v", "q"], POINTS)
    gained = [
        one - other for one, other in zip(*(residuals(n, [term], THETA) for n in (added(out), NETS)), strict=True)
    ]
    for mine, own in zip(gained, (u, u_x, u_xt, 2 * hidden @ out[0, :, 1], torch.zeros(6).double()), strict=True):
        torch.testing.assert_close(mine[0], own.detach())


def test_slopes_of_residuals_are_those_of_finite_differences():
    out, step, size = normal(3, 5, 2, seed=3), normal(3, 5, 2, seed=4), 1e-6
    for term in TERMS:
        made = Evaluation(added(out), term, THETA.clone().requires_grad_(True), taped=True)
        slopes = made.of_features(FEATURES)
        ahead, behind = (torch.stack(residuals(added(out + way * size * step), [term], THETA), 1) for way in (1, -1))
        assert slopes.shape == (*ahead.shape, 10)
        along = (slopes @ step.flatten(1)[:, None, :, None])[..., 0]
        torch.testing.assert_close(along, (ahead - behind) / (2 * size), rtol=1e-6, atol=1e-7)


def test_features_turn_inside_the_domain():
    many = Features.drawn(NETS.fields, 1, 2000, torch.Generator().manual_seed(0))
    corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]).double()
    inner = corners @ many.weight + many.bias
    assert bool(((inner.amax(0) > 0) & (inner.amin(0) < 0)).all())
