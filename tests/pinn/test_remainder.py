"""The last correction of the fields, and what is missing behind it."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from bayesdd import pinn
from bayesdd.pinn.features import Features
from bayesdd.pinn.left import zeros
from bayesdd.pinn.remainder import APART, MOST, Remainder, corrected, missing
from bayesdd.pinn.residuals import Evaluation, linearised, residuals
from bayesdd.pinn.terms import field_term


def test_a_correction_repeated_sums_up_to_what_is_missing():
    """Corrections of a linear equation that each leave a third: 1/3 + 1/9 + ... of the first are missing behind it."""
    assert missing(1 / 3) == pytest.approx(sum(3.0**-power for power in range(1, 60)))
    assert missing(0.0) == 0.0
    assert missing(2.0) == missing(MOST) == pytest.approx(MOST / (1 - MOST))


RATE = 0.8


def decay(**given):
    """U' = -rate u from start, of which u = start exp(-rate t) is the solution."""
    return pinn.Problem(
        inputs={"t": (0.0, 2.0)},
        parameters={"start": (0.5, 2.0)},
        outputs=("u",),
        equation=lambda s, p: s.u_t + p.rate * s.u,
        conditions=[pinn.at(t=0.0, u=lambda s, p: s.start)],
        **given,
    )


def fit(problem, data=None, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pinn.FitWarning)
        return pinn.fit(problem, data, seed=0, hidden=(8,), modes=2, steps=100, **settings)


@pytest.fixture(scope="module")
def fitted():
    return fit(decay(constants={"rate": RATE}))


def test_it_is_least_squares_of_the_residuals_over_their_scales(fitted, monkeypatch):
    sizes = {"FEATURES": 20, "POINTS": 64, "CONDITION": 1.0}
    for name, size in sizes.items():
        monkeypatch.setattr(f"bayesdd.pinn.remainder.{name}", size)
    bare, noise = replace(fitted.networks, added=None), fitted.zero_noise
    found = corrected(bare, fitted.theta, noise, 5).added
    features = Features.drawn(bare.fields, 2, 20, torch.Generator().manual_seed(5))
    white, off, at = [], [], 0
    for term in zeros(fitted.problem, None, 5, points=64):
        made = Evaluation(bare, term, fitted.theta.clone().requires_grad_(True), taped=True)
        slopes, values = made.of_features(features), made.residuals().detach()
        for part in range(values.shape[1]):
            white.append(slopes[:, part] / noise[:, at, None, None])
            off.append(values[:, part] / noise[:, at, None])
            at += 1
    stacked = torch.cat([*white, torch.eye(20).double().expand(2, -1, -1)], 1)
    right = -torch.cat([*off, torch.zeros(2, 20).double()], 1)
    own = torch.linalg.lstsq(stacked, right[..., None]).solution
    torch.testing.assert_close(found.out, own, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(found.weight, features.weight)


def test_fields_come_a_hundred_times_closer_and_intervals_follow(fitted):
    rng = np.random.default_rng(0)
    points = {"t": rng.uniform(0, 2, 200), "start": rng.uniform(0.5, 2, 200)}
    truth = points["start"] * np.exp(-RATE * points["t"])
    bare = replace(fitted, networks=replace(fitted.networks, added=None))
    mean, sd = fitted.predict(points)["u"]
    off, before = np.abs(mean - truth), np.abs(bare.predict(points)["u"][0] - truth)
    assert off.mean() < before.mean() / 100
    assert (off <= 1.645 * sd).mean() > 0.85
    assert sd.mean() < 10 * off.mean()


def test_what_is_missing_grows_with_the_share_that_is_left(fitted, monkeypatch):
    assert fitted.shares == {}  # residuals as small as these do not matter
    monkeypatch.setattr("bayesdd.pinn.remainder.NEGLIGIBLE", 1e-9)
    remainder = Remainder(fitted)
    rows = {"t": torch.linspace(0, 2, 20).double(), "start": torch.ones(20).double()}
    term = field_term(fitted.problem, ["u"], rows)
    (lacking,) = remainder.of(term, linearised(fitted.networks, [term], fitted.theta)[1])
    (after,), (before,) = (
        residuals(networks, [term], fitted.theta)
        for networks in (fitted.networks, replace(fitted.networks, added=None))
    )
    share = remainder.share
    assert 0 < share == max(remainder.shares.values()) < MOST
    torch.testing.assert_close(lacking, share / (1 - share) * (after - before).mean(0))


def test_points_of_the_fit_the_correction_and_the_share_are_others(fitted):
    fit = next(term for term in fitted.terms if term.observed is None).points["t"]
    own, share = (zeros(fitted.problem, None, seed, points=64)[0].points["t"] for seed in (APART, 2))
    assert not torch.equal(fit, own) and not torch.equal(own, share) and not torch.equal(fit, share)


def test_a_constant_follows_its_corrected_fields_to_the_inverse_problem():
    """u' = -rate u, u(0) = start: without an error of the network the rate is that of least squares on exponentials."""
    rng = np.random.default_rng(0)
    at = {"t": rng.uniform(0, 2, 60), "start": rng.uniform(0.5, 2.0, 60)}
    u = at["start"] * np.exp(-RATE * at["t"]) + 0.02 * rng.normal(size=60)
    found = fit(decay(unknown={"rate": (1.0, 0.5)}), {**at, "u": u}, noise=0.02)
    rate = RATE
    for _ in range(20):
        slope = -at["t"] * at["start"] * np.exp(-rate * at["t"])
        precision = (slope**2).sum() / 0.02**2 + 1 / 0.5**2
        off = u - at["start"] * np.exp(-rate * at["t"])
        rate += ((slope * off).sum() / 0.02**2 - (rate - 1) / 0.5**2) / precision
    mean, sd = found.constants["rate"]
    assert abs(mean - rate) < 0.05 * precision**-0.5
    assert sd == pytest.approx(precision**-0.5, rel=0.02)
