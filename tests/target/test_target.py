"""Targets: several tasks, a student, nuisances integrated out."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesdd.target.nuisances import NUISANCE_DRAWS
from bayesdd.target.target import Target
from bayesdd.task.task import Task


def noisy(x, y=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    sigma = pyro.sample("sigma", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(mu * x, sigma), obs=y)


def clean(x, y=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(mu * x, 0.3), obs=y)


def other_prior(x, y=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(mu * x, 0.3), obs=y)


def data(rows=40):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, generator=generator, dtype=torch.float64)
    return {"x": x, "y": 0.7 * x + 0.5 * torch.randn(rows, generator=generator, dtype=torch.float64)}


def test_nuisance_is_integrated_out():
    """Against a fine grid over the noise scale."""
    target = Target([Task(noisy, data())], Task(clean, data()), "cpu", 0)
    assert target.rows == 40 and len(target.nuisance) == 1
    mu = torch.linspace(0.4, 1.0, 7, dtype=torch.float64)
    free = torch.linspace(-4.0, 2.0, 6001, dtype=torch.float64)
    d = data()
    sigma = free.exp()
    by_row = dist.Normal(mu[:, None, None] * d["x"][:, None], sigma).log_prob(d["y"][:, None]).sum(1)
    prior = dist.Normal(torch.zeros(()).double(), 0.5).log_prob(free)
    exact = (by_row + prior).logsumexp(1) + math.log(6.0 / 6000)
    got = target.log_likelihood(mu[:, None])[0]
    torch.testing.assert_close(got - got[3], exact - exact[3], rtol=0, atol=2.0 / NUISANCE_DRAWS)
    torch.testing.assert_close(got, exact, rtol=0, atol=2.0 / NUISANCE_DRAWS)


def test_without_nuisance_it_is_the_sweep():
    task = Task(clean, data())
    target = Target([task], task, "cpu", 0)
    draws = torch.randn(5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value, error = target.log_likelihood(draws)
    torch.testing.assert_close(value, task.log_likelihood(task.data, draws).sum(1))
    assert error == 0 and target.with_control_variate(draws) is target


def test_student_site_that_the_target_lacks_is_refused():
    with pytest.raises(ValueError, match=r"latent site 'sigma'.*target has only \['mu'\]"):
        Target([Task(clean, data())], Task(noisy, data()), "cpu", 0)


def test_unequal_priors_are_refused():
    with pytest.raises(ValueError, match=r"'mu' has another prior density"):
        Target([Task(clean, data())], Task(other_prior, data()), "cpu", 0)
    with pytest.raises(ValueError, match=r"'mu' has another prior density"):
        Target([Task(clean, data()), Task(other_prior, data())], Task(clean, data()), "cpu", 0)
