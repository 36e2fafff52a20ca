"""The last correction of the fields: least squares, and what it makes of fields, constants and eigenvalues."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from bayesdd import pinn
from bayesdd.pinn.features import Features
from bayesdd.pinn.left import zeros
from bayesdd.pinn.polish import APART, corrected
from bayesdd.pinn.residuals import Evaluation

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
        monkeypatch.setattr(f"bayesdd.pinn.polish.{name}", size)
    bare, noise = replace(fitted.networks, added=None), fitted.zero_noise
    networks, theta = corrected(bare, fitted.theta, noise, torch.zeros(0, dtype=torch.bool), 5)
    found = networks.added
    assert torch.equal(theta, fitted.theta)
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


def test_an_eigenvalue_is_solved_for_with_its_fields():
    """u'' = -value u from zero to zero: no field follows another value than pi^2."""
    problem = pinn.Problem(
        inputs={"x": (0.0, 1.0)},
        parameters={"k": (1.0, 2.0)},
        outputs=("u",),
        equation=lambda s, p: s.u_xx + p.value * s.u,
        conditions=[pinn.at(x=0.0, u=0.0, u_x=lambda s, p: s.k), pinn.at(x=1.0, u=0.0)],
        unknown={"value": (9.0, 2.0)},
    )
    found = fit(problem)
    bare = replace(found, networks=replace(found.networks, added=None))
    mean, sd = found.constants["value"]
    assert not bool(found.response.followed.any())
    assert abs(mean - math.pi**2) < 1e-6 > sd / 100
    assert found.errors()["equation"] < bare.errors()["equation"] / 10


def test_a_correction_that_leaves_more_is_not_made(monkeypatch):
    """Two features fitted to eight points leave more between them than the networks did."""
    for name, size in {"FEATURES": 8, "POINTS": 4, "CONDITION": 0.1}.items():
        monkeypatch.setattr(f"bayesdd.pinn.polish.{name}", size)
    found = fit(decay(constants={"rate": RATE}))
    assert not bool(found.networks.added.out.any())
    assert found.predict({"t": [1.0], "start": [1.0]})["u"][0] == pytest.approx(math.exp(-RATE), abs=1e-3)


def test_an_equation_that_is_not_finite_between_the_points_of_the_fit_is_not_corrected_but_doubted():
    problem = replace(
        decay(constants={"rate": RATE}), equation=lambda s, p: s.u_t + p.rate * s.u + 0 * torch.sqrt(s.t - 0.001)
    )
    found = fit(problem, points=64)
    assert not bool(found.networks.added.out.any())
    assert any("of the residuals of equation" in doubt for doubt in found.doubts)


def test_a_correction_that_meets_a_layer_at_the_cost_of_conditions_is_not_made():
    """Features do not resolve the layer at x = 1: with them the equation is met better and the solution is farther."""
    layer = pinn.Problem(
        inputs={"x": (0.0, 1.0)},
        parameters={"eps": (0.04, 0.3)},
        outputs=("u",),
        equation=lambda s, p: s.eps * s.u_xx - s.u_x,
        conditions=[pinn.at(x=0.0, u=0.0), pinn.at(x=1.0, u=1.0)],
    )
    surrogate = pinn.fit(layer, seed=0, hidden=(8, 8), modes=1, steps=100)
    rng = np.random.default_rng(0)
    points = {"x": rng.uniform(0, 1, 500), "eps": rng.uniform(0.04, 0.3, 500)}
    truth = np.expm1(points["x"] / points["eps"]) / np.expm1(1 / points["eps"])
    bare = replace(surrogate, networks=replace(surrogate.networks, added=None))
    made, _ = corrected(bare.networks, bare.theta, bare.zero_noise, torch.zeros(0, dtype=torch.bool), APART)
    spoilt = replace(surrogate, networks=made)
    error, would = (np.abs(one.predict(points)["u"][0] - truth).mean() for one in (surrogate, spoilt))
    assert spoilt.errors()["equation"] < surrogate.errors()["equation"] and would > 5 * error
    assert torch.equal(surrogate.networks.added.out, torch.zeros_like(surrogate.networks.added.out))
