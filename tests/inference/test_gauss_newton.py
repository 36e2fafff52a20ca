"""Fisher information, Levenberg-Marquardt and Gauss-Newton Laplace approximations against closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesdd.density.density import Density
from bayesdd.inference import gauss_newton, hmc
from bayesdd.inference.information import Information
from bayesdd.inference.mode import fit, scattered
from bayesdd.inference.network_modes import around, climb, randomised
from bayesdd.networks import bnn, mlp
from bayesdd.networks.mlp import Network
from bayesdd.task.task import Task
from models import categorical_regression, linear_regression, logistic_regression

NET = Network((0.0,), (1.0,), (4,))


def density_of(task, rows=40, weight=None):
    return Density([(task, {name: column[:rows] for name, column in task.data.items()}, weight)])


def information(density, points):
    blocks = list(Information(density).blocks(points))
    return sum(block.mT @ block for block in blocks)


def points_of(density, count=2):
    return torch.randn(count, density.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2


def visits(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Poisson((x @ w).exp()), obs=y)


@pytest.fixture(scope="module")
def x():
    return torch.randn(30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def linear():
    return linear_regression.task(rows=40, dim=3)


def test_it_is_minus_the_hessian_of_canonical_models(x, linear):
    poisson = Task(visits, {"x": x, "y": torch.arange(30) % 4})
    for task in (linear, logistic_regression.task(rows=40), categorical_regression.task(), poisson):
        density = density_of(task)
        points = points_of(density)
        hessian = density.likelihood_derivatives(points)[2]
        torch.testing.assert_close(information(density, points), -hessian, rtol=1e-9, atol=1e-9)


def test_of_a_noise_scale_it_is_the_expected_one():
    task = linear_regression.task_unknown_noise(rows=40, dim=3)
    density = density_of(task)
    points = points_of(density)
    found, sigma = information(density, points), task.constrain(points)["sigma"]
    start, width = density.starts["w"][0], 3
    x = task.data["x"][:40]
    by_hand = (x.T @ x) / sigma[:, None, None] ** 2
    torch.testing.assert_close(found[:, start : start + width, start : start + width], by_hand)
    at = density.starts["sigma"][0]
    # In log sigma: 2 for every row, and nothing between scale and mean.
    torch.testing.assert_close(found[:, at].sum(1), torch.full((2,), 80.0, dtype=torch.float64))


def masked(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    seen = ~y.isnan()
    with pyro.plate("data", len(x)), pyro.poutine.mask(mask=seen), pyro.poutine.scale(scale=2.0):
        pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y.nan_to_num())


def test_weights_scales_and_masks_count(x):
    y = torch.linspace(-1, 1, 30, dtype=torch.float64)
    y[::3] = math.nan
    weight = torch.rand(30, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 3
    density = density_of(Task(masked, {"x": x, "y": y}), 30, weight)
    points = points_of(density)
    torch.testing.assert_close(information(density, points), -density.likelihood_derivatives(points)[2])


def test_a_distribution_without_a_root_is_refused(x):
    def waiting(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Gamma(2.0, (x @ w).exp()), obs=y)

    density = density_of(Task(waiting, {"x": x, "y": x[:, 0].exp()}))
    with pytest.raises(ValueError, match=r"site 'y' has Gamma: use bayesdd\.inference\.laplace"):
        gauss_newton(density, draws=2, chains=1, seed=0)


def related(x, y=None):
    """A prior that is not independent."""
    covariance = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 4.0]], dtype=torch.float64)
    w = pyro.sample("w", dist.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


def test_modes_are_those_of_newton(x, linear):
    """Many rows, few rows (solved in their own dimensions), and a prior with correlations."""
    wide = linear_regression.task(rows=2, dim=6)
    tasks = [linear, wide, logistic_regression.task(rows=40), Task(related, {"x": x, "y": x[:, 0]})]
    for task in tasks:
        density = density_of(task)
        found = climb(density, scattered(density, 3, 0))
        assert bool((found.left.abs() < 1e-7).all())
        torch.testing.assert_close(found.points, fit(density).mean.expand_as(found.points), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [2, 60])
def test_draws_have_the_posterior_covariance(rows):
    """With 2 rows and 6 coefficients draws come by Matheron's rule, with 60 by Cholesky."""
    task = linear_regression.task(rows=rows, dim=6)
    mean, covariance = (torch.as_tensor(v) for v in linear_regression.exact(**task.data))
    draws = around(density_of(task, rows), mean.expand(2, -1), draws=20_000, seed=3)
    assert draws.values.shape == (2, 20_000, 6)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (draws.flat - mean).T, upper=False)
    assert float(white.mean(1).abs().max()) < 4.5 / 200
    assert float((torch.cov(white) - torch.eye(6)).abs().max()) < 4.5 * math.sqrt(2 / 40_000)


def test_searches_from_prior_draws_keep_the_spread_that_rows_leave_alone():
    """Linear: each end is C (prior draw + X'y / sigma^2), so the ends have the posterior's mean and covariance C C."""
    task = linear_regression.task(rows=4, dim=6)
    mean, covariance = (torch.as_tensor(v) for v in linear_regression.exact(**task.data))
    found = randomised(density_of(task, 4), 600, 0)
    white = torch.linalg.solve(covariance, (found.points - mean).T)
    assert float(white.mean(1).abs().max()) < 4.5 / math.sqrt(600)
    assert float((torch.cov(white) - torch.eye(6)).abs().max()) < 4.5 * math.sqrt(2 / 600)
    torch.testing.assert_close(found.log_joint, density_of(task, 4).log_joint(found.points))


@pytest.fixture(scope="module")
def surrogate():
    """A curve through noisy outcomes, its noise inferred: site ``noise``."""
    x = torch.linspace(-1, 1, 30, dtype=torch.float64)[:, None]
    task = bnn.student({"x": x, "y": torch.sin(3 * x[:, 0])}, network=NET)
    return Density([(task, task.data, None)])


def starts(density, count):
    found = torch.randn(count, density.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found[:, density.starts["noise"][0]] = math.log(0.1)
    return found


def test_a_network_climbs_to_where_its_gradient_ends(surrogate):
    begin = starts(surrogate, 3)
    first = climb(surrogate, begin, steps=50, hold=["noise"])
    found = climb(surrogate, first.points, steps=50)
    assert bool((found.log_joint.diff() <= 0).all())
    value, gradient = surrogate.log_joint_gradient(found.points)
    torch.testing.assert_close(value, found.log_joint)
    assert bool((value > surrogate.log_joint(begin) + 50).all())
    # At the best mode what a small step along the gradient gains is nothing beside the height.
    assert float(found.left[0]) < 1.0 and bool(torch.isfinite(gradient).all())


def test_held_sites_stay(surrogate):
    begin = starts(surrogate, 2)
    found = climb(surrogate, begin, steps=5, hold=["noise"])
    at = surrogate.starts["noise"][0]
    assert torch.equal(found.points[:, at], begin[:, at])
    other = surrogate.starts["bias_0"][0]
    assert bool((found.points[:, other] != begin[:, other]).all())
    with pytest.raises(ValueError, match=r"names site 'sigma', but the sites are \['bias_0'"):
        climb(surrogate, begin, hold=["sigma"])


@pytest.mark.long
def test_hmc_without_whitening(linear):
    density = density_of(linear)
    mean, covariance = (torch.as_tensor(v) for v in linear_regression.exact(**linear.data))
    draws = hmc(density, draws=300, chains=8, seed=0, warmup=150, start=mean.expand(8, -1), whiten=False, thin=2)
    assert int(draws.stats["n_steps"].max()) <= 64
    assert draws.values.shape == (8, 300, 3)
    sd = covariance.diagonal().sqrt()
    assert bool(((draws.flat.mean(0) - mean).abs() / sd < 4.5 / math.sqrt(800)).all())
    assert bool(((draws.flat.var(0) / sd**2).log().abs() < 4.5 * math.sqrt(2 / 800)).all())


def test_weights_of_a_network_do_not_matter_their_function_does():
    """Units exchanged and signs flipped: other weights, the same function."""
    net = Network((0.5, 1.0), (0.5, 0.9), (4,))
    flat = torch.randn(net.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (first, bias), (second, last) = mlp.split(net, flat)
    order = torch.tensor([2, 0, 3, 1])
    turned = [(-first[:, order], -bias[order]), (-second[order], last)]
    z = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mlp.value(net, turned, z), mlp.value(net, [(first, bias), (second, last)], z))
