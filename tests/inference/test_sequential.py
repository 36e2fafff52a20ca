"""Sequential Monte Carlo and searches in lockstep against closed forms: evidence, masses of modes, moments, ends."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd.density.density import Density
from bayesdd.inference.mode import fit
from bayesdd.inference.searches import climb_together
from bayesdd.inference.sequential import tempered
from models import linear_regression


def density_of(task):
    return Density([(task, task.rows, None)])


def test_moments_and_evidence_of_a_normal_posterior():
    task = linear_regression.task(rows=40, dim=3)
    mean, covariance = (torch.as_tensor(part) for part in linear_regression.exact(**task.data))
    found = [tempered(density_of(task), particles=256, seed=seed) for seed in range(4)]
    # All stages weighted together: about a thousand effective draws.
    for one in found:
        weight = one.log_weight.exp()
        assert abs(float(weight.sum()) - 1) < 1e-9 and 1 / float((weight**2).sum()) > 300
        miss = (weight @ one.every - mean) / covariance.diagonal().sqrt()
        assert float(miss.abs().max()) < 5 * math.sqrt(3 * float((weight**2).sum()))
    # The evidence: Laplace's is exact for a normal posterior.
    exact = fit(density_of(task)).log_mass
    errors = torch.tensor([one.log_evidence - exact for one in found])
    assert float(errors.abs().max()) < 2.0 and float(errors.mean().abs()) < 1.0


def two_modes(y):
    t = pyro.sample("t", dist.Normal(0.0, 5.0))
    with pyro.plate("data", len(y)):
        near = torch.logaddexp(
            dist.Normal(t - 4.0, 0.1).log_prob(y), math.log(0.25) + dist.Normal(t + 4.0, 0.1).log_prob(y)
        )
        pyro.factor("row", near)


def test_modes_get_particles_by_mass():
    """Likelihoods 1 and 1/4 at 4 and -4, equal priors: a fifth of the mass lies at -4."""
    task = bayesdd.Task(two_modes, {"y": torch.zeros(1)})
    share = []
    for seed in range(8):
        found = tempered(density_of(task), particles=256, seed=seed)
        share.append(float(found.log_weight.exp()[found.every[:, 0] < 0].sum()))
    error = torch.tensor(share).std() / math.sqrt(len(share))
    assert abs(sum(share) / len(share) - 0.2) < 4 * float(error) and max(share) < 0.5 and min(share) > 0.02


def test_searches_end_at_the_mode_whatever_their_units():
    task = linear_regression.task(rows=40, dim=3)
    density, mean = density_of(task), torch.as_tensor(linear_regression.exact(**task.data)[0])
    starts = 20 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for unit in (0.01, 1.0, 30.0):
        ends = climb_together(density, starts, torch.full((3,), unit, dtype=torch.float64))
        assert float(fit(density).distance(ends).max()) < 1e-4
        torch.testing.assert_close(ends, mean.expand(6, 3), atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", range(2))
def test_no_particles_without_a_finite_density(seed):
    def nowhere(y):
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.factor("row", torch.where(t < 1e3, y * 0 + t, torch.full_like(y, -math.inf)))

    task = bayesdd.Task(nowhere, {"y": torch.zeros(2)})
    shifted = density_of(task)
    shifted.log_joint = lambda points: torch.full((len(points),), -math.inf, dtype=torch.float64)
    assert tempered(shifted, particles=8, seed=seed) is None
