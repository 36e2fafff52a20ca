"""The closed forms of second-order matching against exact Gaussian algebra."""

import math

import torch

from bayesdd.objectives import half_variance
from bayesdd.target.second_order import SecondOrder
from bayesdd.target.target import Target
from models import gaussian_mean, linear_regression, logistic_regression


def problem(task, rows, seed=0):
    target = Target([task], task, "cpu", 0)
    gaussian = target.gaussian()
    second = SecondOrder.of(gaussian, target)
    picked = torch.randperm(task.size, generator=torch.Generator().manual_seed(seed))[:rows]
    weight = torch.full((rows,), task.size / rows, dtype=torch.float64)
    return target, gaussian, second, {name: column[picked] for name, column in task.data.items()}, weight


def test_forward_kl_is_exact_for_linear_regression():
    task = linear_regression.task(rows=300, dim=4)
    _, _, second, rows, weight = problem(task, 10)
    full = linear_regression.exact(**task.data)
    few = linear_regression.exact(**rows, weight=weight)
    expected = float(gaussian_mean.kl(full, few))
    assert math.isclose(float(second.forward_kl(task, rows, weight).detach()), expected, rel_tol=1e-6)


def test_half_variance_is_exact_for_linear_regression():
    task = linear_regression.task(rows=300, dim=3)
    target, gaussian, second, rows, weight = problem(task, 10)
    draws = gaussian.draw(200_000, torch.Generator().manual_seed(1))
    ratio = target.log_likelihood(draws)[0] - task.log_likelihood(rows, draws) @ weight
    even = torch.full_like(ratio, -math.log(len(ratio)))
    sampled = float(half_variance(ratio, even))
    error = float((0.5 * (ratio - ratio.mean()) ** 2).std()) / math.sqrt(len(ratio))
    assert abs(float(second.half_variance(task, rows, weight).detach()) - sampled) < 4 * error


def test_all_rows_leave_nothing():
    task = logistic_regression.task(rows=300)
    _, _, second, _, _ = problem(task, 10)
    ones = torch.ones(300, dtype=torch.float64)
    assert float(second.half_variance(task, task.data, ones).detach()) < 1e-18
    assert abs(float(second.forward_kl(task, task.data, ones).detach())) < 1e-9


def test_gradients_against_finite_differences():
    task = logistic_regression.task(rows=300)
    _, _, second, rows, weight = problem(task, 12)
    for form in (second.half_variance, second.forward_kl):
        leaf = weight.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(form(task, rows, leaf), leaf)
        for m in range(3):
            step = torch.zeros_like(weight)
            step[m] = 1e-4
            numeric = (form(task, rows, weight + step) - form(task, rows, weight - step)) / 2e-4
            torch.testing.assert_close(gradient[m], numeric.detach(), rtol=1e-5, atol=1e-7)
