"""The cubic in closed form against formulas of logistic regression, and where it is not taken."""

import pyro
import pyro.distributions as dist
import torch

from bayesdd.distillation import cubic_energy
from bayesdd.distillation.cubic_energy import _along, closest_cubic
from bayesdd.distillation.first_stage import Run, closed_form, held_out_half_variance, starting_problem
from bayesdd.objectives import half_variance
from bayesdd.target.reference import build
from bayesdd.target.target import Target
from bayesdd.task.task import Task
from models import logistic_regression


def run_of(task):
    return Run(build(Target([task], task, "cpu", 0), 0), half_variance, 0, 0.05, lambda _: None, False, True)


def test_derivatives_along_the_predictor_are_those_of_the_logistic_function():
    run = run_of(logistic_regression.task(rows=300, dim=4))
    problem, second = starting_problem(run, 9, None, 0), run.second_order
    found, weight = _along(second, problem, problem.start)
    rows, held = problem.hard(problem.start)
    white = rows["x"] @ second.gaussian.factor
    p = torch.sigmoid(rows["x"] @ second.gaussian.mean)
    torch.testing.assert_close(weight, held)
    length = (white * found.unit).sum(1)  # the sign of the direction is free
    torch.testing.assert_close(length.abs(), white.norm(dim=1))
    torch.testing.assert_close(found.first, (rows["y"] - p) * length, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.second, -p * (1 - p) * length**2, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.third, -p * (1 - p) * (1 - 2 * p) * length**3, rtol=1e-4, atol=1e-6)


def test_it_comes_closer_than_second_order(monkeypatch):
    monkeypatch.setattr(cubic_energy, "ITERATIONS", 250)
    run = run_of(logistic_regression.task(rows=500, dim=8))
    problem = starting_problem(run, 16, None, 0)
    vector, _ = closed_form(run, problem)
    closer = closest_cubic(run.reference.target, run.second_order, problem, vector)
    before, after = (held_out_half_variance(run, problem, some) for some in (vector, closer))
    assert after < 0.5 * before


def test_rows_with_a_scale_have_no_single_direction():
    def line(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ w, sigma), obs=y)

    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    run = run_of(Task(line, {"x": x, "y": x.sum(1) + 0.3 * x[:, 0].sin()}))
    problem = starting_problem(run, 6, None, 0)
    assert closest_cubic(run.reference.target, run.second_order, problem, problem.start) is None
