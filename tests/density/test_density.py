"""Density: blocks, several tasks, derivatives."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesdd.density import passes
from bayesdd.density.density import Density, derivatives
from bayesdd.task.task import Task
from models import linear_regression, logistic_regression


def measured(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-1.0, 0.5))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ w, sigma), obs=y)


def counted(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Poisson((x @ w).exp()), obs=y)


def data(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    return {"x": x, "y": (x @ torch.tensor([0.5, -0.2], dtype=torch.float64)).exp().round()}


def test_blocks_and_chunks_change_nothing(monkeypatch):
    task = logistic_regression.task(rows=500)
    draws = torch.randn(7, task.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = Density([(task, task.data, None)])
    expected = whole.sweep(draws), *whole.log_joint_gradient(draws), *whole.likelihood_derivatives(draws[:2])
    monkeypatch.setattr(passes, "BLOCK", 64)
    monkeypatch.setattr(passes, "CACHE_CELLS", 128)
    small = Density([(task, task.data, None)])
    got = small.sweep(draws), *small.log_joint_gradient(draws), *small.likelihood_derivatives(draws[:2])
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-9)


def test_chunks_halve_where_the_device_runs_out_of_memory():
    task = logistic_regression.task(rows=20)
    density = Density([(task, task.data, None)])
    (part,) = density.parts
    took = []

    def evaluate(at):
        if at.stop - at.start > 3:
            raise torch.OutOfMemoryError("none left")
        took.append(at)

    density._passes.in_chunks(part, task.data, 14, evaluate)
    assert [i for at in took for i in range(at.start, at.stop)] == list(range(14)) and len(took) < 14

    def never(at):
        raise torch.OutOfMemoryError("none left")

    with pytest.raises(MemoryError, match="no memory for one draw of 20 rows"):
        density._passes.in_chunks(part, task.data, 14, never)


def test_weight_two_is_the_row_twice():
    task = logistic_regression.task(rows=20)
    draws = torch.randn(5, task.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    twice = {name: torch.cat([column, column]) for name, column in task.data.items()}
    weighted = Density([(task, task.data, torch.full((20,), 2.0, dtype=torch.float64))])
    torch.testing.assert_close(weighted.log_joint(draws), Density([(task, twice, None)]).log_joint(draws))


def test_shared_prior_counts_once():
    a, b = Task(measured, data(30, 0)), Task(counted, data(20, 1))
    joint = Density([(a, a.data, None), (b, b.data, None)])
    assert joint.dim == 3 and joint.size == 50
    draws = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = (
        a.log_prior(draws) + a.log_likelihood(a.data, draws).sum(1) + b.log_likelihood(b.data, draws[:, :2]).sum(1)
    )
    torch.testing.assert_close(joint.log_joint(draws), expected)
    value, gradient = joint.log_joint_gradient(draws)
    step = 1e-6 * torch.eye(3, dtype=torch.float64)
    numeric = torch.stack([(joint.log_joint(draws + s) - joint.log_joint(draws - s)) / 2e-6 for s in step], 1)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, numeric, rtol=1e-5, atol=1e-5)


def test_shared_site_of_another_shape_is_named():
    def wide(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(x @ w[:2], 1.0), obs=y)

    a, b = Task(counted, data(20, 1)), Task(wide, data(20, 1))
    with pytest.raises(ValueError, match=r"'w'.*\(3,\).*\(2,\)"):
        Density([(a, a.data, None), (b, b.data, None)])


def test_hessian_is_exact_for_linear_regression():
    task = linear_regression.task(rows=200, dim=5)
    full = Density([(task, task.data, None)])
    _, _, hessian = full.likelihood_derivatives(torch.zeros(1, 5, dtype=torch.float64))
    _, covariance = linear_regression.exact(**task.data)
    _, _, prior = full.prior_derivatives(torch.zeros(1, 5, dtype=torch.float64))
    covariance = torch.as_tensor(covariance)
    torch.testing.assert_close(-(hessian[0] + prior[0]), torch.linalg.inv(covariance), rtol=1e-8, atol=1e-6)


def test_counts_sweeps_and_gradients():
    task = Task(partial(counted), data(20, 1))
    full = Density([(task, task.data, None)])
    draws = torch.zeros(6, 2, dtype=torch.float64)
    full.sweep(draws)
    full.log_joint_gradient(draws)
    full.likelihood_derivatives(draws[:1])
    assert (full.evaluations, full.gradients) == (6, 6 + 3)


def test_derivatives_at_the_last_point_are_kept():
    task = linear_regression.task(rows=30, dim=2)
    full = Density([(task, task.data, None)])
    here, there = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    first = full.likelihood_derivatives(here)
    cost = full.gradients
    assert all(map(torch.equal, full.likelihood_derivatives(here.clone()), first)) and full.gradients == cost
    other = full.likelihood_derivatives(there)
    assert full.gradients == 2 * cost and not torch.equal(other[1], first[1])
    torch.testing.assert_close(other[1], first[1] + first[2] @ there[0])


@pytest.mark.parametrize("rows", [5, 40])
def test_batched_hessians_are_those_of_copies(rows):
    """One run batched over directions against double backward over copies, with weights, block by block."""
    task = logistic_regression.task(rows=rows, dim=3)
    weight = torch.linspace(0.2, 3.0, rows, dtype=torch.float64)
    point = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    batched = task.likelihood_hessian(task.data, weight, point)
    copies = derivatives(task, task.data, weight, point, torch.arange(3))
    for one, other in zip(batched, copies, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    few = Density([(task, task.data, weight)], memory=1000)  # blocks of a row or two
    for one, other in zip(few.likelihood_derivatives(point[None]), copies, strict=True):
        torch.testing.assert_close(one[0], other, rtol=1e-10, atol=1e-10)


def test_a_model_that_cannot_be_batched_has_hessians_too():
    def branching(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        slope = w if float(w.sum()) > 0 else 2 * w
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(x @ slope, 1.0), obs=y)

    columns = {"x": torch.randn(6, 2, dtype=torch.float64), "y": torch.randn(6, dtype=torch.float64)}
    task = Task(branching, columns)
    assert task.backend == "loop"
    _, _, hessian = Density([(task, columns, None)]).likelihood_derivatives(torch.ones(1, 2, dtype=torch.float64))
    torch.testing.assert_close(hessian[0], -columns["x"].T @ columns["x"])
