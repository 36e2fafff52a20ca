"""Draws of a posterior with several modes, some of which only particles have met."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd.certificate.looks import _side
from bayesdd.certificate.modes import Found, modes_of_rows
from bayesdd.certificate.proposal import proposed
from bayesdd.density.density import Density
from bayesdd.inference.mode import newton
from bayesdd.inference.sequential import Tempered


def phase(y):
    """Its sine is known: the posterior repeats itself at every turn, and at the supplement."""
    t = pyro.sample("t", dist.Normal(0.0, 6.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(t.sin(), 0.1), obs=y)


ANGLE = 0.5
PLACES = sorted(at + 2 * math.pi * turn for at in (ANGLE, math.pi - ANGLE) for turn in (-2, -1, 0, 1))


@pytest.fixture(scope="module")
def density():
    task = bayesdd.Task(phase, {"y": np.full(8, math.sin(ANGLE))})
    return Density([(task, task.rows, None)])


def particles(density, shares):
    """A few particles at each mode, with these shares of the weight."""
    spread = 0.02 * torch.linspace(-1.5, 1.5, 16, dtype=torch.float64)
    points = torch.cat([place + spread for place in PLACES])[:, None]
    weight = torch.repeat_interleave(torch.tensor(shares, dtype=torch.float64) / 16, 16)
    log_weight = (weight / weight.sum()).log()
    return Tempered(points, points, log_weight, density.log_joint(points), log_evidence=0.0)


def log_evidence(density):
    grid = torch.linspace(-40, 40, 80_001, dtype=torch.float64)[:, None]
    return float(density.log_joint(grid).logsumexp(0)) + math.log(1e-3)


def test_modes_that_only_particles_have_met_are_drawn_from(density):
    """One mode of eight is known. A normal over the other seven would have weights too uneven to use."""
    home = newton(density, torch.tensor([ANGLE], dtype=torch.float64))
    assert home is not None
    found = proposed(density, Found([home], 1), 0, 4000, particles(density, [1.0] * len(PLACES)))
    assert found is not None and found.draws is not None
    places = [float(mode.mean) for mode in found.modes.modes]
    assert all(min(abs(place - at) for at in places) < 0.05 for place in PLACES)
    assert found.log_evidence == pytest.approx(log_evidence(density), abs=0.05)


def test_shares_of_particles_do_not_count_where_draws_are(density):
    """Particles put nine tenths of their weight on one mode of eight; the draws know better, unless they lack it."""
    modes = modes_of_rows(density, torch.tensor(PLACES, dtype=torch.float64)[:, None], 0)
    own = particles(density, [0.9 if place == PLACES[0] else 0.1 / 7 for place in PLACES])

    def log_ratio(points):
        return -20.0 * ((points[:, 0] - PLACES[0]).abs() < 0.5).double()

    def far(modes, whether=True):
        proposal = proposed(density, modes, 0, 4000, None) if whether else None
        return _side(own, Found(modes.modes[:1], 1), None, proposal, 8, log_ratio, 0.0, -1.0, 0).far

    others = Found([mode for mode in modes.modes if abs(float(mode.mean) - PLACES[0]) > 0.5], 1)
    assert far(modes) == 0.0
    assert far(others) == pytest.approx(0.9 * 19, rel=0.3)
    assert far(modes, whether=False) == pytest.approx(0.9 * 19, rel=0.3)


def test_searches_grow_until_they_find_nothing_new(density):
    """All eight heaviest modes, one of which rounds of equal size miss."""
    places = [float(mode.mean) for mode in modes_of_rows(density, torch.zeros(0, 1, dtype=torch.float64), 0).modes]
    assert all(min(abs(place - at) for at in places) < 0.05 for place in PLACES)
