"""Least squares over particles: the Jacobian, the polynomials, and third order where it has room."""

import itertools
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd.distillation.least_squares import LogRatios, _basis, has_room, polynomials, third_order
from bayesdd.distillation.problem import Problem
from bayesdd.numerics.gaussian import Gaussian
from bayesdd.target.particles import Particles
from models import poisson_regression


def regression(x, y=None, group=None):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def classes(x, y=None):
    w = pyro.sample("w", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Categorical(logits=x @ w), obs=y)


def rows_of(count, seed=0, labels=2):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3 if labels == 2 else 2, generator=generator, dtype=torch.float64)
    x[:, 0] = 1.0
    y = torch.randint(labels, (count,), generator=generator)
    return {"x": x, "y": y.double() if labels == 2 else y}


def problem_of(task, size=5, **settings):
    rows = {name: column[:size] for name, column in task.data.items()}
    settings = {"equal_weights": False, "move_rows": True, **settings}
    weight = torch.linspace(1.0, 2.0, size, dtype=torch.float64)
    return Problem.from_rows(task, rows, weight, torch.device("cpu"), **settings)


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        (bayesdd.Task(regression, rows_of(40)), {}),
        (bayesdd.Task(regression, rows_of(40)), {"equal_weights": True}),
        (bayesdd.Task(regression, rows_of(40)), {"move_rows": False}),
        (bayesdd.Task(classes, rows_of(40, labels=3), kinds={"y": bayesdd.kinds.soft(3)}), {}),
    ],
    ids=["soft outcomes", "equal weights", "fixed rows", "soft classes"],
)
def test_the_jacobian_is_autograds(task, settings):
    problem = problem_of(task, **settings)
    draws = torch.randn(7, task.dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value, jacobian = problem.jacobian(problem.start, draws)
    torch.testing.assert_close(value, problem.log_likelihood(problem.start, draws))
    exact = torch.autograd.functional.jacobian(lambda v: problem.log_likelihood(v, draws), problem.start)
    torch.testing.assert_close(jacobian, exact)


def test_held_entries_and_the_last_class_are_no_unknowns():
    """Intercept and group stay: two covariates, a soft outcome and a weight a row."""
    task = bayesdd.Task(regression, rows_of(40))
    assert problem_of(task).moving == 5 * 4
    soft = bayesdd.Task(classes, rows_of(40, labels=3), kinds={"y": bayesdd.kinds.soft(3)})
    assert problem_of(soft).moving == 5 * (1 + 2 + 1)


def test_the_basis_holds_every_cubic_and_no_constant():
    generator = torch.Generator().manual_seed(2)
    white = torch.randn(200, 4, generator=generator, dtype=torch.float64)
    weight = torch.softmax(torch.randn(200, generator=generator, dtype=torch.float64), 0)
    basis = _basis(white, weight)
    assert basis.shape == (200, polynomials(4)) == (200, 34)
    torch.testing.assert_close(basis.T @ basis, torch.eye(34, dtype=torch.float64))
    assert float((basis.T @ weight.sqrt()).abs().max()) < 1e-12
    for i, j, k in itertools.product(range(4), repeat=3):
        cubic = white[:, i] * white[:, j] * white[:, k] - 0.3 * white[:, j]
        centred = weight.sqrt() * (cubic - weight @ cubic)
        torch.testing.assert_close(basis @ (basis.T @ centred), centred)


def test_residuals_sum_to_the_mean_half_variance():
    task = bayesdd.Task(regression, rows_of(40))
    problem, sets, halves = problem_of(task), [], []
    for seed in (3, 4):
        generator = torch.Generator().manual_seed(seed)
        draws = torch.randn(30 * seed, 3, generator=generator, dtype=torch.float64)
        log_weight = torch.log_softmax(torch.randn(30 * seed, generator=generator, dtype=torch.float64), 0)
        full = task.log_likelihood(task.data, draws).sum(1)
        full[0] = -torch.inf  # such a draw is left out
        sets.append(Particles(draws, full, log_weight, full))
        ratio = (full - problem.log_likelihood(problem.start, draws))[1:]
        weight = torch.softmax(log_weight[1:], 0)
        halves.append(0.5 * (weight @ ratio**2 - (weight @ ratio) ** 2))
    found = LogRatios(problem, sets).residuals(problem.start)
    torch.testing.assert_close(found @ found, torch.stack(halves).mean())


def test_third_order_removes_every_polynomial():
    """Narrow draws: differences of degree three vanish, and nearly all of the rest."""
    task = poisson(300)
    gaussian = Gaussian(torch.zeros(2, dtype=torch.float64), 0.03 * torch.eye(2, dtype=torch.float64))
    draws = gaussian.draw(400, torch.Generator().manual_seed(0))
    full = task.log_likelihood(task.data, draws).sum(1)
    particles = Particles(draws, full, torch.full((400,), 1 / 400, dtype=torch.float64).log(), full)
    problem = problem_of(task, size=6)
    assert has_room(problem, 2, 400) and not has_room(problem_of(task, size=2), 2, 400)
    ratios = LogRatios(problem, [particles])
    left = ratios.residuals(third_order(problem, gaussian, particles, 1e-14))
    basis, before = _basis(gaussian.whitened(draws), particles.log_weight.exp()), ratios.residuals(problem.start)
    assert float((basis.T @ left).square().sum()) < 1e-13
    assert float(left @ left) < 1e-8 * float(before @ before)


def poisson(count):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    y = torch.poisson((0.3 * x.sum(1)).exp(), generator=generator)
    return bayesdd.Task(partial(poisson_regression.model), {"x": x, "y": y})


def test_a_smaller_tolerance_comes_closer_and_third_names_a_size(recwarn):
    task = poisson(400)
    small = bayesdd.distill(task, size="third", seed=0, progress=False)
    assert len(small) == 3 and small.certificate.ok  # 1.3 times 9 polynomials, 4 unknowns a row
    closer = bayesdd.distill(task, size=3, tolerance=1e-8, seed=0, progress=False)
    assert closer.certificate.kl_reverse < small.certificate.kl_reverse + 2 * small.certificate.kl_reverse_se
    with pytest.raises(bayesdd.Refusal, match="third order"):
        bayesdd.distill(task, size="third", move_rows=False, progress=False)
    with pytest.raises(bayesdd.Refusal, match="size="):
        bayesdd.distill(task, size="many", progress=False)
