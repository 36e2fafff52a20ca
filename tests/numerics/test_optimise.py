"""L-BFGS wrapper: returns the best point met, survives non-finite values, stops where nothing is gained."""

import torch

from bayesdd.numerics.optimise import lbfgs


def rosenbrock(v):
    return ((1 - v[:-1]) ** 2 + 100 * (v[1:] - v[:-1] ** 2) ** 2).sum()


def test_finds_the_minimum():
    found, value = lbfgs(rosenbrock, torch.zeros(10, dtype=torch.float64), 500)
    torch.testing.assert_close(found, torch.ones(10, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    assert value < 1e-12


def test_survives_a_region_without_values():
    def barrier(v):
        return v.sum().sqrt() - 4 * v.sum().log() if float(v.detach().sum()) > 0 else v.sum() * torch.nan

    found, _ = lbfgs(barrier, torch.full((2,), 0.01, dtype=torch.float64), 200)
    assert abs(float(found.sum()) - 64) < 1e-3


def test_stops_at_enough_and_keeps_the_best():
    calls = []

    def counted(v):
        calls.append(float(v.detach().pow(2).sum()))
        return v.pow(2).sum()

    _, value = lbfgs(counted, torch.full((3,), 5.0, dtype=torch.float64), 100, enough=1.0)
    assert value == min(calls) <= 1.0
    start = torch.full((3,), 5.0, dtype=torch.float64)
    kept, _ = lbfgs(lambda v: v.sum() * torch.nan, start, 10)
    assert torch.equal(kept, start)
