"""Every inference method on posteriors with a closed form."""

import inspect
import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesdd import inference
from bayesdd.density.density import Density
from bayesdd.inference import hmc, laplace, nuts
from bayesdd.inference.mode import fit
from bayesdd.numerics.gaussian import Gaussian
from bayesdd.task.task import Task
from models import linear_regression

METHODS = [f for f in vars(inference).values() if inspect.isfunction(f)]


def weighted_moments(draws):
    flat = draws.flat
    weight = torch.ones(len(flat), dtype=flat.dtype) if draws.log_weight is None else draws.log_weight.flatten()
    weight = torch.softmax(weight, 0) if draws.log_weight is not None else weight / len(flat)
    mean = weight @ flat
    return mean, (flat - mean).T @ ((flat - mean) * weight[:, None])


@pytest.mark.parametrize("method", METHODS)
def test_linear_regression_with_weights(method):
    task = linear_regression.task(rows=40, dim=3)
    weight = torch.linspace(0.5, 3.0, 40, dtype=torch.float64)
    density = Density([(task, task.data, weight)])
    slow = method in (nuts, inference.constrained)
    settings, chains, count = ({"warmup": 60}, 2, 120) if slow else ({}, 4, 400)
    draws = method(density, draws=count, chains=chains, seed=1, **settings)
    assert draws.values.shape == (chains, count, 3)
    mean, covariance = (torch.as_tensor(v) for v in linear_regression.exact(**task.data, weight=weight))
    sd = covariance.diagonal().sqrt()
    got, spread = weighted_moments(draws)
    count = chains * count / (4 if method is nuts else 2)
    assert bool(((got - mean).abs() / sd < 4.5 / math.sqrt(count)).all())
    assert bool(((spread.diagonal() / covariance.diagonal()).log().abs() < 4.5 * math.sqrt(2 / count)).all())


@pytest.mark.parametrize("method", METHODS)
def test_seeds(method):
    task = linear_regression.task(rows=20, dim=2)
    density = Density([(task, task.data, None)])
    before = torch.random.get_rng_state(), torch.get_default_dtype()
    few = {"warmup": 5} if "warmup" in inspect.signature(method).parameters else {}
    first, second, other = (method(density, draws=8, chains=2, seed=s, **few).values for s in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(before[0], torch.random.get_rng_state()) and before[1] == torch.get_default_dtype()


def beta_binomial(y):
    p = pyro.sample("p", dist.Beta(2.0, 2.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Bernoulli(p), obs=y)


@pytest.mark.parametrize("method", [hmc, laplace])
def test_jacobian_and_skewness(method):
    """Posterior Beta(3, 9): wrong by far without the Jacobian or without the importance weights."""
    task = Task(beta_binomial, {"y": torch.tensor([1] + [0] * 7)})
    draws = method(Density([(task, task.data, None)]), draws=250, chains=32, seed=0)
    weight = torch.zeros(8000) if draws.log_weight is None else draws.log_weight.flatten()
    p = task.constrain(draws.flat)["p"]
    mean = float(torch.softmax(weight, 0).double() @ p)
    assert abs(mean - 3 / 12) < 5 * math.sqrt(3 * 9 / (12**2 * 13) / 3000)


def centred(y, group):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfNormal(5.0))
    theta = pyro.sample("theta", dist.Normal(mu, tau).expand([8]).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(theta[group], 10.0), obs=y)


def test_centred_hierarchy_has_no_laplace_fit_but_hmc_runs():
    y = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12], dtype=torch.float64)
    task = Task(centred, {"y": y, "group": torch.arange(8)})
    density = Density([(task, task.data, None)])
    assert fit(density) is None
    with pytest.raises(ValueError, match=r"bayesdd\.inference\.hmc"):
        laplace(density, draws=10, chains=1, seed=0)
    draws = hmc(density, draws=25, chains=16, seed=0, warmup=60)
    mu = draws.flat[:, 0]
    assert bool(torch.isfinite(draws.values).all()) and -2 < float(mu.mean()) < 9


def mirrored(y):
    theta = pyro.sample("theta", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(theta**2, 1.0), obs=y)


def test_chains_visit_every_mode():
    """Two mirror modes of equal mass: every chain is half of its time in each."""
    task = Task(mirrored, {"y": torch.full((20,), 4.0)})
    values = hmc(Density([(task, task.data, None)]), draws=100, chains=4, seed=0, warmup=50).values[:, :, 0]
    assert float((values.abs() - 2).abs().max()) < 0.5
    # Jumps are accepted almost always, so that draws are nearly independent in sign.
    assert float(((values > 0).double().mean(1) - 0.5).abs().max()) < 4 * 0.5 / 100**0.5


def test_hmc_statistics():
    task = linear_regression.task(rows=30, dim=2)
    draws = hmc(Density([(task, task.data, None)]), draws=30, chains=5, seed=0)
    assert {"diverging", "acceptance_rate", "energy", "lp", "n_steps", "step_size"} <= set(draws.stats)
    assert all(value.shape == (5, 30) for value in draws.stats.values())
    assert 0.6 < float(draws.stats["acceptance_rate"].mean()) <= 1 and not bool(draws.stats["diverging"].any())


def on_years(x, y):
    """A line on calendar years: constant and slope are correlated at -0.99999."""
    a = pyro.sample("a", dist.Normal(0.0, 100.0))
    b = pyro.sample("b", dist.Normal(0.0, 10.0))
    s = pyro.sample("s", dist.HalfNormal(5.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(a + b * x, s), obs=y)


def test_hmc_stays_whitened_where_latents_are_almost_collinear():
    generator = torch.Generator().manual_seed(0)
    x = torch.arange(1952.0, 2014.0, dtype=torch.float64)
    y = 9.0 + 0.02 * (x - 1983) + torch.randn(62, generator=generator, dtype=torch.float64)
    task = Task(on_years, {"x": x, "y": y})
    draws = hmc(Density([(task, task.data, None)]), draws=50, chains=4, seed=0)
    assert float(draws.stats["n_steps"].double().mean()) < 5  # thirty where the metric forgets the correlation


def test_laplace_fit_is_exact_for_gaussians():
    task = linear_regression.task(rows=50, dim=4)
    gaussian = fit(Density([(task, task.data, None)]))
    mean, covariance = (torch.as_tensor(v) for v in linear_regression.exact(**task.data))
    torch.testing.assert_close(gaussian.mean, mean, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(gaussian.factor @ gaussian.factor.T, covariance, rtol=1e-8, atol=1e-14)


def test_laplace_fit_in_any_units():
    """Covariates in thousands far from zero and in thousandths: the raw precision has condition number 1e15."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 3, generator=generator, dtype=torch.float64) * torch.tensor([1e3, 1e-3, 0.0])
    x = x + torch.tensor([5e4, 2.0, 1.0], dtype=torch.float64)
    y = x @ torch.tensor([2e-3, 300.0, 1.0], dtype=torch.float64) + torch.randn(500, generator=generator)

    def scaled(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1e3).expand([3]).to_event(1))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    task = Task(scaled, {"x": x, "y": y})
    gaussian = fit(Density([(task, task.data, None)]))
    unit = torch.tensor([1e3, 1e-3, 1.0], dtype=torch.float64)
    whole = torch.linalg.inv((x / x.abs().amax(0)).T @ (x / x.abs().amax(0)) + (1e-3 / x.abs().amax(0)).square().diag())
    covariance = whole / x.abs().amax(0) / x.abs().amax(0)[:, None]
    got = gaussian.factor @ gaussian.factor.T
    torch.testing.assert_close(got * unit * unit[:, None], covariance * unit * unit[:, None], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("dim", [1, 11, 60])
def test_student_proposals_have_the_density_that_they_say(dim):
    """Importance weights to the normal of equal mean and scale average to one, and no draw counts for much."""
    factor = torch.linalg.cholesky(torch.eye(dim, dtype=torch.float64) * 3 + 0.5)
    gaussian = Gaussian(torch.full((dim,), 2.0, dtype=torch.float64), factor)
    values = gaussian.draw_student(20_000, torch.Generator().manual_seed(0))
    log_density = gaussian.log_prob_student(values)
    weight = (gaussian.log_prob(values) - log_density).exp()
    assert abs(float(weight.mean()) - 1) < 4 * float(weight.std()) / math.sqrt(len(weight))
    assert float(weight.std()) < 0.5
    mean = (weight[:, None] * (values - 2)).mean(0)
    assert float(mean.abs().max()) < 5 * math.sqrt(3.5 / len(values))
