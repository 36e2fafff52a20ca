"""Densities that hold while a model runs are Pyro's and torch's own."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.func import grad, vmap

from bayesdd.task.vmap_safe import vmap_safe

LOGITS = torch.tensor([-800.0, -40.5, -20.1, -3.0, 0.0, 0.7, 19.9, 20.1, 39.9, 40.1, 800.0], dtype=torch.float64)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("by", ["logits", "probs"])
def test_bernoulli_is_torchs_own_soft_observations_included(value, by):
    settings = {by: LOGITS if by == "logits" else LOGITS.sigmoid().clamp(1e-12, 1 - 1e-12), "validate_args": False}
    y = torch.full_like(LOGITS, value)
    own = dist.Bernoulli(**settings).log_prob(y)
    with vmap_safe():
        ours = dist.Bernoulli(**settings).log_prob(y)
    torch.testing.assert_close(ours, own, rtol=1e-13, atol=1e-13)
    assert torch.equal(dist.Bernoulli(**settings).log_prob(y), own)  # restored


def test_bernoulli_has_torchs_derivatives_under_vmap():
    def density(logit, y):
        return dist.Bernoulli(logits=logit, validate_args=False).log_prob(y)

    y = torch.linspace(0, 1, len(LOGITS), dtype=torch.float64)
    own = vmap(grad(density))(LOGITS, y), vmap(grad(grad(density)))(LOGITS, y), vmap(grad(density, 1))(LOGITS, y)
    with vmap_safe():
        ours = vmap(grad(density))(LOGITS, y), vmap(grad(grad(density)))(LOGITS, y), vmap(grad(density, 1))(LOGITS, y)
    for a, b in zip(ours, own, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("value", [0, 1, 2])
def test_ordered_logistic_is_pyros_own(value):
    predictor, cutpoints = torch.tensor([0.3, -2.0]).double(), torch.tensor([-1.0, 0.5]).double()
    own = dist.OrderedLogistic(predictor, cutpoints).log_prob(torch.tensor(value))
    with vmap_safe():
        ours = dist.OrderedLogistic(predictor, cutpoints).log_prob(torch.tensor(value))
    torch.testing.assert_close(ours, own, rtol=1e-6, atol=1e-6)


def test_multinomial_is_torchs_own():
    probs, value = torch.tensor([0.2, 0.5, 0.3]).double(), torch.tensor([1.0, 4.0, 2.0]).double()
    own = torch.distributions.Multinomial(7, probs).log_prob(value)
    with vmap_safe():
        ours = torch.distributions.Multinomial(7, probs).log_prob(value)
    torch.testing.assert_close(ours, own)


HERE = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
MISSING = torch.where(HERE, torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64), torch.nan)
TRIANGLE = torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.8, 0.0], [-0.3, 0.2, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize(
    "density",
    [
        lambda loc: dist.NanMaskedNormal(loc, 0.7, validate_args=False).log_prob(MISSING),
        lambda loc: dist.NanMaskedMultivariateNormal(loc, scale_tril=TRIANGLE, validate_args=False).log_prob(MISSING),
    ],
    ids=["normal", "multivariate"],
)
def test_missing_values_are_left_out_as_pyro_does_and_vmap_can(density):
    loc = torch.tensor([[0.1, 0.2, -0.3], [1.0, -1.0, 0.5]], dtype=torch.float64)
    own = torch.stack([density(one) for one in loc])
    with vmap_safe():
        ours, slope = vmap(density)(loc), vmap(grad(lambda one: density(one).sum()))(loc)
    torch.testing.assert_close(ours, own, rtol=1e-12, atol=1e-12)
    for one, found in zip(loc, slope, strict=True):
        torch.testing.assert_close(
            torch.autograd.functional.jacobian(density, one).sum(tuple(range(own.dim() - 1))), found
        )


def test_the_normal_log_cdf_is_torchs_own_with_its_derivatives():
    x = torch.tensor([-300.0, -37.5, -5.0, -0.1, 0.0, 0.1, 5.0, 9.0, 40.0], dtype=torch.float64)
    with vmap_safe():
        ours, slope = torch.special.log_ndtr(x), vmap(grad(lambda z: torch.special.log_ndtr(z)))(x)
    torch.testing.assert_close(ours, torch.special.log_ndtr(x), rtol=1e-13, atol=1e-300)
    torch.testing.assert_close(slope, (-(x**2) / 2 - math.log(2 * math.pi) / 2 - ours).exp(), rtol=1e-10, atol=1e-300)


FACTORISED = {
    "cholesky": lambda m: torch.linalg.cholesky(m)[..., 1, 1].log(),
    "method": lambda m: m.inverse()[..., 1, 0],
    "inverse": lambda m: torch.linalg.inv(m)[..., 0, 0],
    "solve": lambda m: torch.linalg.solve(m, torch.ones(2, dtype=torch.float64))[..., 0],
    "normal": lambda m: dist.MultivariateNormal(torch.zeros(2).double(), m).log_prob(torch.ones(2).double()),
    "precision": lambda m: dist.MultivariateNormal(torch.zeros(2).double(), precision_matrix=m).log_prob(
        torch.ones(2).double()
    ),
}


def test_logaddexp_is_torchs_own_and_has_a_second_derivative():
    """With p the first term's share, that of log(exp(x) + exp(c)) in x is p (1 - p)."""
    x = torch.tensor([-45_000.0, -3.0, 0.0, 0.5, 45_000.0, -math.inf], dtype=torch.float64)
    zero = torch.zeros((), dtype=torch.float64)
    own = torch.logaddexp(x, zero), vmap(grad(lambda at: torch.logaddexp(at, zero)))(x)
    with vmap_safe():
        ours = torch.logaddexp(x, zero), vmap(grad(lambda at: at.logaddexp(zero)))(x)
        curved = vmap(grad(grad(lambda at: torch.logaddexp(at, zero))))(x)
    for a, b in zip(ours, own, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(curved, x.sigmoid() * (1 - x.sigmoid()), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", FACTORISED)
def test_a_factorisation_that_fails_at_one_draw_leaves_the_others(name):
    """Values and gradients of the other draws are the library's own."""

    def density(scale):
        ones = torch.ones(2, 2, dtype=torch.float64)
        return FACTORISED[name](ones + scale * torch.eye(2, dtype=torch.float64))

    good = torch.tensor([0.5, 2.0], dtype=torch.float64)
    own = [density(scale) for scale in good]
    with vmap_safe(), pyro.validation_enabled(False):
        found = vmap(density)(torch.cat([good, torch.zeros(1, dtype=torch.float64)]))
        slope = vmap(grad(density))(torch.cat([good, torch.zeros(1, dtype=torch.float64)]))
    torch.testing.assert_close(found[:2], torch.stack(own), rtol=1e-12, atol=1e-13)
    step = torch.stack([(density(scale + 1e-6) - density(scale - 1e-6)) / 2e-6 for scale in good])
    torch.testing.assert_close(slope[:2], step, rtol=1e-6, atol=1e-8)
    assert not torch.isfinite(found[2])
