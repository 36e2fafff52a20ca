"""The mode of many rows from that of few: the same Gaussian as Newton's method, for fewer passes."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesdd.density.density import Density
from bayesdd.inference import mode
from bayesdd.inference.mode import climb, climb_many, curvature, fit, newton
from bayesdd.task.task import Task
from models import logistic_regression, poisson_regression

TASK = logistic_regression.task(rows=20_000, dim=4)


def thinned(task, step, factor=1.0):
    rows = {name: column[::step] for name, column in task.data.items()}
    count = len(next(iter(rows.values())))
    return Density([(task, rows, torch.full((count,), factor * task.size / count, dtype=torch.float64))])


def whole(task):
    return Density([(task, task.data, None)])


@pytest.mark.parametrize("factor", [1.0, 0.2, 30.0])
def test_it_is_newtons_mode_though_the_few_rows_are_weighted_wrongly(factor):
    few, full, other = thinned(TASK, 20, factor), whole(TASK), whole(TASK)
    start = newton(few, torch.zeros(4, dtype=torch.float64)).mean
    found, exact = climb_many(full, few, start), newton(other, start)
    away = torch.linalg.solve_triangular(exact.factor, (found.mean - exact.mean)[:, None], upper=False)
    assert float(away.norm()) < 1e-4
    torch.testing.assert_close(found.factor, exact.factor, rtol=1e-4, atol=1e-8)
    assert found.height == pytest.approx(exact.height, rel=1e-12)
    if factor == 1.0:
        assert full.gradients < 0.6 * other.gradients


def test_a_start_far_away_still_arrives():
    """Poisson rates e^2.5 times too high: the few rows' curvature there is far too large."""
    full = poisson_regression.task()
    task = full.with_data({name: column[::5] for name, column in full.data.items()})
    start = torch.zeros(task.dim, dtype=torch.float64)
    exact = newton(whole(task), start)
    start[0] = exact.mean[0] + 2.5
    found = climb_many(whole(task), thinned(task, 10), start)
    away = torch.linalg.solve_triangular(exact.factor, (found.mean - exact.mean)[:, None], upper=False)
    assert float(away.norm()) < 1e-4


def mirrored(y):
    theta = pyro.sample("theta", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(theta**2, 1.0), obs=y)


def test_it_climbs_where_the_way_is_not_concave(monkeypatch):
    climbs = []
    monkeypatch.setattr(mode, "climb", lambda *given: climbs.append(given) or climb(*given))
    found = fit(thinned(TASK, 20))
    slope, precision = curvature(thinned(TASK, 20), found.mean[None])
    assert not climbs and float(slope @ torch.linalg.solve(precision, slope)) < 1e-10
    # Between two modes the log joint curves upward. Its slope, 40 theta (4 - theta^2) - theta / 9, is zero at both.
    density = whole(Task(mirrored, {"y": torch.full((20,), 4.0)}))
    found = fit(density, start=torch.tensor([0.1], dtype=torch.float64))
    assert len(climbs) == 1 and float(found.mean) ** 2 == pytest.approx(4 - 1 / 360, abs=1e-8)
