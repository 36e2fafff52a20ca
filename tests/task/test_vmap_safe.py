"""Densities that hold while a model runs are Pyro's and torch's own."""

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
