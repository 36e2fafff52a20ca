"""Samplers of Bayesian networks: the same density in JAX, the seconds until chains agree, rows of the table."""

import numpy as np
import pytest
import torch

from studies import bpinn_samplers
from studies.bpinn.cell import PROBLEMS, SMOKE, setting
from studies.bpinn_samplers import cell, rivals
from studies.bpinn_samplers.own import Run


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("problem", PROBLEMS, ids=[problem.name for problem in PROBLEMS])
def test_the_density_in_jax_is_bayesdds(problem):
    pytest.importorskip("jax")
    made = setting(problem, SMOKE)
    function = rivals.log_density(made)  # raises where they differ
    start = made.start[0]
    assert float(function(start.numpy())) == pytest.approx(float(made.density.log_joint(start[None])[0]), rel=1e-10)


def run(u):
    steps = torch.ones(u.shape[1], dtype=torch.float64)
    return Run(u, steps, compilation=100.0, adaptation=5.0, sampling=40.0)


def test_chains_that_agree_from_the_start_reach_it_within_the_first_draws():
    u = torch.randn(4, 4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert 5.0 < cell._reached(u, run(u)) < 5.0 + 0.3 * 40.0


def test_chains_at_different_places_or_at_rest_never_reach_it():
    u = torch.randn(4, 400, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert cell._reached(u + torch.arange(4.0)[:, None, None], run(u)) is None
    assert cell._reached(torch.zeros_like(u), run(u)) is None


def test_seconds_count_from_where_chains_agree_for_good():
    """One chain is elsewhere in the first quarter of its draws."""
    u = torch.randn(4, 4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u[0, :1000] += 1.0
    assert cell._reached(u, run(u)) is None or cell._reached(u, run(u)) > 5.0 + 0.25 * 40.0


def test_means_that_differ_by_chance_alone_are_about_one_error_apart():
    rng = np.random.default_rng(0)
    one, other = ({"mean": rng.normal(size=500) * 0.1, "se": np.full(500, 0.1)} for _ in range(2))
    assert bpinn_samplers._apart(one, other) == pytest.approx(1.0, abs=0.15)
