"""Checks of the target itself: modes that differ, rows held out that its intervals miss."""

import pyro
import pyro.distributions as dist
import torch

import bayesdd
from bayesdd.networks.target_check import disagreement, missed, smooth
from bayesdd.target.target import Target


def test_modes_that_differ_by_more_than_each_admits():
    """Two normals of sd 1 whose means differ by d have a standard deviation d / sqrt(2) between them."""
    draws = torch.randn(2, 4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for apart, said in ((0.0, False), (2.5, False), (4.0, True)):
        moved = draws + torch.tensor([0.0, apart])[:, None, None]
        assert bool(disagreement(moved)) == said
    assert "2 modes differ by 2.8 of the sds" in disagreement(moved)
    assert disagreement(moved[:1]) == ""


def test_rows_held_out_that_intervals_miss():
    """Intervals of the right width hold 90 %; of half the width 59 %, which 200 rows tell and five do not."""
    outcome = torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean, sd = torch.zeros_like(outcome), torch.ones_like(outcome)
    assert missed(mean, sd, outcome) == ""
    assert "of 200 rows held out" in missed(mean, 0.5 * sd, outcome)
    assert missed(mean[:5], 0.5 * sd[:5], torch.tensor([0.1, 0.2, 0.9, -1.0, 0.0])) == ""


def line(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(w * x, 0.1), obs=y)


def test_residuals_that_are_smooth_are_no_noise():
    """A line through noise, and through a wave of the same size that the model calls noise."""
    x = torch.linspace(-2, 2, 100, dtype=torch.float64)
    noise = 0.1 * torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for y, said in ((x + noise, False), (x + 0.14 * torch.cos(3 * x), True), (x + 0.02 * torch.cos(3 * x), False)):
        task = bayesdd.Task(line, {"x": x, "y": y})
        found = smooth(Target([task], task, "cpu", 0), torch.ones(1, dtype=torch.float64))
        assert ("is smooth, not noise" in found) == said
