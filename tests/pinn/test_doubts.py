"""What speaks against a surrogate is said, and only where something does."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from bayesdd import pinn
from bayesdd.pinn.doubts import _regular, _unknowns_apart

RATE, NOISE = 0.8, 0.03


def fitted(rate, *, unknown=False, seed=0):
    """A decay of rate 0.8, measured 60 times, by an equation with this rate."""
    problem = pinn.Problem(
        inputs={"t": (0.0, 2.0)},
        parameters={"start": (0.5, 2.0)},
        outputs=("u",),
        equation=lambda s, p: s.u_t + p.rate * s.u,
        conditions=[pinn.at(t=0.0, u=lambda s, p: s.start)],
        **({"unknown": {"rate": (rate, 0.5)}} if unknown else {"constants": {"rate": rate}}),
    )
    rng = np.random.default_rng(seed)
    at = {"t": rng.uniform(0, 2, 60), "start": rng.uniform(0.5, 2, 60)}
    y = at["start"] * np.exp(-RATE * at["t"]) + NOISE * rng.normal(size=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pinn.FitWarning)
        return pinn.fit(problem, {**at, "u": y}, seed=0, hidden=(8,), modes=2, steps=100)


def test_measurements_off_the_field_in_a_regular_way_are_no_noise():
    wrong = fitted(1.6)
    assert wrong.measurement_noise["u"] > 3 * NOISE and min(wrong.held.values()) > 0.8  # nothing else shows it
    assert any("'u' lie off its field in a regular way" in said for said in wrong.doubts)


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_not_taken_for_something_regular(seed):
    assert _regular(fitted(RATE, seed=seed)) == []


def test_searches_that_end_in_different_constants_are_said():
    surrogate = fitted(1.0, unknown=True)
    assert _unknowns_apart(surrogate) == []
    prior, sd = surrogate.problem.unknown["rate"][1], surrogate.constants["rate"][1]
    for step, said in ((20 * sd / prior, True), (1e-4, False)):
        apart = surrogate.theta.clone()
        apart[:, -1] += step * torch.tensor([1.0, -1.0], dtype=torch.float64)
        found = _unknowns_apart(replace(surrogate, theta=apart))
        assert any("different 'rate'" in one for one in found) == said
