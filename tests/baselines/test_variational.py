"""The variational coresets on a Gaussian mean, whose reverse KL and all its gradients are known exactly."""

import importlib
import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd.baselines import coreset_mcmc, psvi, quasi_newton, sparse_vi, uniform
from bayesdd.baselines._coreset_mcmc import Chains, Dog, stationary
from bayesdd.baselines._parts import CoresetPosterior, adam, near
from bayesdd.baselines._quasi_newton import newton_step, searched
from bayesdd.density.density import Density
from bayesdd.inference.mode import newton
from models import gaussian_mean, linear_regression, logistic_regression

TASK = gaussian_mean.task(rows=60, dim=2)
X = TASK.data["x"]


def reverse_kl(rows, weight):
    return gaussian_mean.kl(gaussian_mean.exact(rows, weight), gaussian_mean.exact(X))


def exact_gradients(rows, weight):
    rows, weight = rows.clone().requires_grad_(True), weight.clone().requires_grad_(True)
    return torch.autograd.grad(reverse_kl(rows, weight), [weight, rows])


def module(name):
    return importlib.import_module(f"bayesdd.baselines._{name}")


def assert_mean(found, expected, errors=4.5):
    """Mean of independent estimates ``(R, n)`` within so many standard errors, which are small against the value."""
    error = found.std(0) / math.sqrt(len(found))
    assert bool(((found.mean(0) - expected).abs() < errors * error).all())
    assert float(error.norm()) < 0.2 * float(expected.norm())


@pytest.mark.parametrize("batch", [None, 40])
def test_sparse_vi_estimates_the_gradient_of_the_reverse_kl(monkeypatch, batch):
    seen, particles = [], 500

    def stopped(start, gradient, *, weights, **_):
        if seen:
            return start
        if not start.any():  # the first round: one row, from the prior
            return torch.tensor([15.0, 0.0], dtype=torch.float64)
        seen.append(torch.stack([gradient(start) for _ in range(400)]))
        return torch.tensor([1.0, 2.0], dtype=torch.float64)

    monkeypatch.setattr(module("sparse_vi"), "adam", stopped)
    rows = sparse_vi(TASK, 2, seed=0, particles=particles, batch=batch).data["x"]
    assert len(rows) == 2
    expected, _ = exact_gradients(rows, torch.tensor([15.0, 0.0], dtype=torch.float64))
    # Both factors are centred at the draws' own mean: a share of 1 / S is lost, as in the authors' code.
    assert_mean(seen[0], expected * (1 - 1 / particles))


@pytest.mark.parametrize("batch", [None, 20])
def test_psvi_estimates_the_gradient_in_weights_and_rows(monkeypatch, batch):
    seen, particles = [], 500

    def stopped(start, gradient, **_):
        seen.append(torch.stack([gradient(start) for _ in range(150)]))
        return start

    monkeypatch.setattr(module("psvi"), "adam", stopped)
    found = psvi(TASK, 3, seed=0, particles=particles, batch=batch)
    assert torch.equal(found.weight, torch.full((3,), 20.0, dtype=torch.float64))
    weight, rows = exact_gradients(found.data["x"], found.weight)
    assert_mean(seen[0], torch.cat([weight, rows.flatten()]) * (1 - 1 / particles))


def test_quasi_newton_estimates_gradient_and_hessian(monkeypatch):
    seen, particles = [], 500

    def stopped(start, downhill, tau, tries):
        seen.extend(downhill(start) for _ in range(150))
        return start, None

    monkeypatch.setattr(module("quasi_newton"), "searched", stopped)
    found = quasi_newton(TASK, 3, seed=0, particles=particles)
    rows, weight = found.data["x"], found.weight
    slope, _ = exact_gradients(rows, weight)
    assert_mean(torch.stack([s for s, _ in seen]), -slope * (1 - 1 / particles))
    # Cov(l_m, l_k) of l_m = -|x_m - theta|^2 / 2 under N(mean, v I).
    mean, covariance = gaussian_mean.exact(rows, weight)
    away, v = rows - mean, float(covariance[0, 0])
    expected = v * away @ away.T + v**2 * rows.shape[1] / 2
    assert_mean(torch.stack([h.flatten() for _, h in seen]), expected.flatten() * (1 - 1 / particles))


@pytest.mark.parametrize("batch", [None, 20])
def test_coreset_mcmc_estimates_the_gradient_along_its_chains(monkeypatch, batch):
    seen = []

    class Still(Dog):
        def step(self, point, gradient):
            seen.append(gradient)
            return torch.zeros_like(point)

    monkeypatch.setattr(module("coreset_mcmc"), "Dog", Still)
    found = coreset_mcmc(TASK, 3, seed=0, chains=8, iterations=900, batch=batch)
    expected, _ = exact_gradients(found.data["x"], found.weight)
    # Neighbouring states are correlated: means of 30 in a row are not.
    assert_mean(torch.stack(seen).unflatten(0, (30, 30)).mean(1), expected)


def test_chains_keep_a_skewed_posterior():
    """One coefficient, outcomes 8 to 1: quadrature against many chains, with an adapted step size."""
    y = torch.tensor([1.0] * 8 + [0.0], dtype=torch.float64)
    task = bayesdd.Task(logistic_regression.model, {"x": torch.ones(9, 1), "y": y})
    weight = torch.linspace(0.2, 0.6, 9, dtype=torch.float64)
    grid = torch.linspace(-8, 10, 4001, dtype=torch.float64)[:, None]
    chance = (task.log_prior(grid) + task.log_likelihood(task.data, grid) @ weight).softmax(0)
    chains = Chains(task, task.data, weight, 400, 0, torch.Generator().manual_seed(0))
    visited = []
    for _ in range(150):
        chains.step(weight)
        visited.append(chains.position)
    kept = torch.stack(visited[50:])
    for power in (1, 2, 3):
        assert_mean((kept**power).mean(0), chance @ grid**power, errors=4)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (sparse_vi, {"steps": 40}),
        (quasi_newton, {}),
        (psvi, {"iterations": 200}),
        (coreset_mcmc, {"iterations": 800}),
    ],
)
def test_each_ends_far_below_uniform_rows(method, settings):
    for seed in range(2):
        start, found = uniform(TASK, 8, seed=seed), method(TASK, 8, seed=seed, **settings)
        assert float(reverse_kl(found.data["x"], found.weight)) < 0.1 * float(reverse_kl(start.data["x"], start.weight))


def test_without_a_step_psvi_and_coreset_mcmc_return_uniform_rows():
    for method in (psvi, coreset_mcmc):
        found = method(TASK, 7, seed=0, iterations=0)
        assert torch.equal(found.weight, torch.full((7,), 60 / 7, dtype=torch.float64))
        assert all(any(torch.equal(row, real) for real in X) for row in found.data["x"])


def test_psvi_moves_real_elements_only():
    task = logistic_regression.task(rows=100, dim=3)
    found = psvi(task, 10, seed=0, iterations=20)
    start = psvi(task, 10, seed=0, iterations=0)
    assert torch.equal(found.data["x"][:, 0], torch.ones(10, dtype=torch.float64))
    assert torch.equal(found.data["y"], start.data["y"])
    assert bool((found.data["x"][:, 1:] != start.data["x"][:, 1:]).all())


def test_sparse_vi_first_takes_the_row_most_correlated_with_the_whole():
    found = sparse_vi(TASK, 1, seed=0, candidates=None, particles=4000, steps=1)
    # Under the prior N(0, I): Cov(l_m, l_n) = x_m'x_n + d / 2.
    gram = X @ X.T + 1
    cosine = gram.sum(1) / gram.diagonal().sqrt()
    at = next(i for i, real in enumerate(X) if torch.equal(real, found.data["x"][0]))
    assert float(cosine[at]) > 0.98 * float(cosine.max())


def test_adam_steps_fall_as_one_over_t_and_weights_stay_nonnegative():
    slope = torch.tensor([-3.0, 5.0, -0.01, 7.0], dtype=torch.float64)
    found = adam(torch.zeros(4, dtype=torch.float64), lambda point: slope, steps=6, step=0.5, weights=2)
    far = 0.5 * sum(1 / t for t in range(1, 7))
    torch.testing.assert_close(found, far * torch.tensor([1.0, 0.0, 1.0, -1.0], dtype=torch.float64), rtol=1e-5, atol=0)


def shrunk(x):
    scale = pyro.sample("scale", dist.HalfCauchy(1.0))
    mean = pyro.sample("mean", dist.Normal(0.0, scale))  # without rows the density rises for ever as log(scale) falls
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def test_without_rows_draws_are_the_priors_own_and_with_rows_a_laplace_fits():
    x = 6 + torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    task, generator = bayesdd.Task(shrunk, {"x": x}), torch.Generator().manual_seed(0)
    posterior = CoresetPosterior(task, 0, "sparse_vi")
    scale = task.constrain(posterior.draws(task.data, torch.zeros_like(x), 400, generator))["scale"]
    for quantile, share in ((math.tan(math.pi / 8), 0.25), (1.0, 0.5), (math.tan(3 * math.pi / 8), 0.75)):
        assert abs(float((scale < quantile).double().mean()) - share) < 4 * math.sqrt(share * (1 - share) / 400)
    assert abs(float(posterior.draws(task.data, torch.ones_like(x), 400, generator)[:, 1].mean()) - x.mean()) < 0.1


def test_newton_step_solves_the_regularised_equations():
    half = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hessian, tau = half @ half.T, 0.01
    step = torch.arange(6, dtype=torch.float64)
    torch.testing.assert_close(newton_step(hessian @ step + tau * step, hessian, tau), step)


def test_a_first_step_without_a_fit_is_shortened_and_one_that_never_fits_is_not_taken():
    goal, start = torch.tensor([4.0, 9.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)

    def downhill(weight, limit):
        if float(weight.max()) > limit:
            raise ValueError("no Laplace fit")
        return goal - weight, 0.5 * torch.eye(2, dtype=torch.float64)

    # Steps twice too long: lengths 1 and 1 / 1.5 pass the goal, 1 / 1.5^2 is the first before it.
    found, after = searched(start, lambda weight: downhill(weight, 12), 0.0, 10)
    torch.testing.assert_close(found, start + 2 / 1.5**2 * (goal - start))
    torch.testing.assert_close(after[0], goal - found)
    assert searched(start, lambda weight: downhill(weight, 1), 0.0, 10) == (start, None)


def test_dog_steps_without_a_learning_rate():
    start = torch.tensor([10.0, 10.0, 10.0], dtype=torch.float64)
    slope = torch.tensor([2.0, -30.0, 0.5], dtype=torch.float64)
    dog, point = Dog(start, 0.001), start
    reached, distance = [], 0.0
    for t in range(1, 40):
        step = dog.step(point, slope)
        # Under a constant gradient the averages are its own: what is left is distance / sqrt(t), and the sign.
        moved = float((point - start).abs()[0])
        distance = 0.9 * distance + 0.1 * max(moved, distance) if t > 1 else 0.0
        far = distance / (1 - 0.9**t) if t > 1 else 0.001
        torch.testing.assert_close(step, far / math.sqrt(t) * slope.sign(), rtol=1e-6, atol=0)
        point = point - step
        reached.append(moved)
    assert reached == sorted(reached) and reached[-1] > 10 * 0.001


def test_dog_does_not_depend_on_the_units_of_the_gradient():
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    ends = []
    for unit in (1.0, 1e6):
        point = torch.ones(4, dtype=torch.float64)
        dog = Dog(point, 0.01)
        for slope in slopes:
            point = point - dog.step(point, unit * slope)
        ends.append(point)
    torch.testing.assert_close(*ends, rtol=1e-6, atol=0)


def test_stationarity_of_traces():
    noise = torch.randn(90, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert stationary(noise)
    assert not stationary(noise + torch.linspace(0, 9, 90, dtype=torch.float64)[:, None])


def test_one_chain_is_refused():
    with pytest.raises(ValueError, match="coreset_mcmc needs at least 2 chains"):
        coreset_mcmc(TASK, 5, seed=0, chains=1)


def test_a_posterior_without_a_fit_is_refused_in_one_line():
    task = linear_regression.task_unknown_noise(rows=50, dim=3)
    with pytest.raises(ValueError, match=r"^sparse_vi[^\n]*Laplace[^\n]*model_unknown_noise[^\n]*$"):
        sparse_vi(task, 2, seed=0, steps=30)  # two rows, four unknowns: they fit exactly, and the noise goes to zero


def test_near_is_a_laplace_fit():
    task = logistic_regression.task(rows=50, dim=3)
    weight = torch.linspace(0.5, 3, 50, dtype=torch.float64)
    density = Density([(task, task.data, weight)])
    exact = newton(density, torch.zeros(3, dtype=torch.float64))
    found = near(density, torch.zeros(3, dtype=torch.float64))
    assert float(torch.linalg.solve(exact.factor, found.mean - exact.mean).norm()) < 0.01
    torch.testing.assert_close(found.factor @ found.factor.T, exact.factor @ exact.factor.T, rtol=0.02, atol=0)
    assert near(density, torch.full((3,), 1e6, dtype=torch.float64)) is None or math.isfinite(float(found.mean.sum()))
