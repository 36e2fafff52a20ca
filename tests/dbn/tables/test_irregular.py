"""Visits at irregular times are a fine grid with gaps: a step whose coefficient and variance depend on the interval."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from bayesdd import dbn
from bayesdd.dbn import Source, Template, pooled

KEPT, STEP, START, NOISE = 0.9, 0.3, 1.1, 0.2  # of a week
TEMPLATE = Template(("a",), inter=(("a", "a"),))


def visits(patients, seed=0):
    """A table of an Ornstein-Uhlenbeck process that is visited after one to six weeks, on any day of the week."""
    rng, found = np.random.default_rng(seed), []
    for patient in range(patients):
        week, level = 0, START * rng.normal()
        for _ in range(5):
            found.append((patient, 7.0 * week + rng.integers(-3, 4) * (week > 0), level + NOISE * rng.normal()))
            gap = int(rng.integers(1, 7))
            week += gap
            level = KEPT**gap * level + np.sqrt(varied(gap)) * rng.normal()
    return pd.DataFrame(found, columns=["patient", "day", "a"])


def varied(gap):
    """Variance that so many weeks add."""
    return STEP**2 * (1 - KEPT ** (2 * gap)) / (1 - KEPT**2)


def test_the_density_is_that_of_steps_that_depend_on_the_interval():
    frame = visits(4)
    source = Source.from_long(frame, patient="patient", time="day", every=7, variables=["a"])
    numbers = {"a_initial": [[0.0]], "a_initial_variance": [START**2], "a": [[0.0, KEPT]], "a_variance": [STEP**2]}
    values = {site: torch.tensor(value, dtype=torch.float64) for site, value in numbers.items()}
    noisy = Template(("a",), inter=(("a", "a"),), noise=NOISE)
    found = dbn.log_likelihood(noisy, values, source.data)[0]
    for density, (_, own) in zip(found, frame.groupby("patient"), strict=True):
        weeks = (own.day / 7).round().to_numpy().astype(int)
        mean, variance, total = 0.0, START**2, 0.0
        for k, y in enumerate(own.a):
            if k:
                gap = weeks[k] - weeks[k - 1]
                mean, variance = KEPT**gap * mean, KEPT ** (2 * gap) * variance + varied(gap)
            seen = variance + NOISE**2
            total -= 0.5 * (np.log(2 * np.pi * seen) + (y - mean) ** 2 / seen)
            mean, variance = mean + variance / seen * (y - mean), variance * NOISE**2 / seen
        assert float(density) == pytest.approx(total, abs=1e-10)


def test_the_posterior_finds_the_step_of_a_week():
    frame = visits(150, seed=1)
    source = Source.from_long(frame, patient="patient", time="day", every=7, variables=["a"])
    full = pooled(TEMPLATE, [replace(source, noise=NOISE)], draws=400)
    slope, deviation = full.draws["a"][:, 1], full.draws["a_variance"].sqrt()
    assert abs(float(slope.mean()) - KEPT) < 3 * float(slope.std()) < 0.2
    assert abs(float(deviation.mean()) - STEP) < 3 * float(deviation.std())
