"""Wide networks: the mode and the evidence of their linear model, and no larger an error than narrow ones."""

import functools
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from bayesdd import pinn
from bayesdd.pinn import modes as searches
from bayesdd.pinn import wide
from bayesdd.pinn.residuals import Networks, linearised, residuals
from bayesdd.pinn.terms import all_terms

NARROW, MORE, POINTS = (4,), 40, 48


def oscillation(power=1):
    """U'' = -k^2 u, of which u = sin(k t) is a solution; with a power of 3 a nonlinear relative."""
    return pinn.Problem(
        inputs={"t": (0.0, 1.0)},
        parameters={"k": (2.0, 4.0)},
        outputs={"u": (-1.0, 1.0)},
        equation=lambda s, p: s.u_tt / 9 + (s.k / 3) ** 2 * s.u**power,
        conditions=[pinn.at(t=0.0, u=0.0, u_t=lambda s, p: s.k)],
    )


@functools.cache
def searched(power=1):
    problem = oscillation(power)
    networks, terms = Networks.of(problem, NARROW, ((0.0, 1.0),)), all_terms(problem, {}, POINTS, 0)
    groups = sum(len(term.names) for term in terms)
    start = torch.randn(2, networks.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    free = torch.full((groups,), torch.nan, dtype=torch.float64)
    found = searches.search(networks, terms, start, free, 60)
    return networks.widened(found.theta, MORE, torch.Generator().manual_seed(1)), terms, found, free


def rows_over(networks, terms, theta, noise):
    """Residuals ``(S, R)`` and slopes ``(S, R, P)`` over their scales, and the log of those summed."""
    scale = noise.repeat_interleave(torch.tensor([term.count for term in terms for _ in term.names]), 1)
    values, slopes = linearised(networks, terms, theta)
    return torch.cat(values, 1) / scale, torch.cat(slopes, 1) / scale[..., None], scale.log().sum(1)


def log_evidence(networks, terms, noise):
    """Of the linear model, up to a constant: rows at the anchor are N(0, s^2 + J J')."""
    white, slopes, logs = rows_over(networks, terms, torch.zeros(len(noise), networks.dim).double(), noise)
    spread = torch.eye(white.shape[1]).double() + slopes @ slopes.mT
    return -0.5 * ((white[:, None] @ torch.linalg.solve(spread, white[..., None]))[:, 0, 0] + spread.logdet()) - logs


def test_corrections_of_narrow_networks_leave_less_and_scales_fall_by_one_factor():
    problem = oscillation()
    networks, terms = Networks.of(problem, NARROW, ((0.0, 1.0),)), all_terms(problem, {}, POINTS, 0)
    _, _, found, free = searched()
    wider, theta, noise = searches.corrected(networks, terms, found, free, torch.Generator().manual_seed(1))
    factor = noise / found.noise
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
    assert bool((factor < 1).all())
    fresh = all_terms(problem, {}, 256, 1)
    before, after = (
        torch.stack([part.square().mean(1) for part in residuals(one, fresh, at)])
        for one, at in ((networks, found.theta), (wider, theta))
    )
    assert bool((after[0] < 0.1 * before[0]).all())


def test_with_known_scales_the_end_is_the_mode_of_the_linear_model():
    """It is least squares of the rows over their scales and of one row of the prior for every weight."""
    networks, terms, found, _ = searched()
    known, start = found.noise[0].clamp_min(1e-3), torch.zeros(2, networks.dim).double()
    noise = known.expand(2, -1)
    theta, kept = wide.sharpened(networks, terms, start, noise, known, searches.FLOOR * found.unit)
    assert torch.equal(kept, noise)
    white, slopes, _ = rows_over(networks, terms, start, noise)
    assert slopes.shape[2] > slopes.shape[1]
    stacked = torch.cat([slopes, torch.eye(networks.dim).double().expand(2, -1, -1)], 1)
    mode = torch.linalg.lstsq(stacked, torch.cat([-white, start], 1)[..., None]).solution[..., 0]
    torch.testing.assert_close(theta, mode, rtol=1e-5, atol=1e-6)


def test_scales_of_what_is_to_be_zero_fall_and_the_evidence_rises():
    networks, terms, found, free = searched()
    start = torch.zeros(2, networks.dim).double()
    _, noise = wide.sharpened(networks, terms, start, found.noise, free, searches.FLOOR * found.unit)
    assert bool((noise <= found.noise).all())
    assert bool((log_evidence(networks, terms, noise) > log_evidence(networks, terms, found.noise) + 10).all())


def test_a_nonlinear_equation_descends():
    networks, terms, found, free = searched(3)
    start = torch.zeros(2, networks.dim).double()
    theta, _ = wide.sharpened(networks, terms, start, found.noise, free, searches.FLOOR * found.unit)
    before, after = (torch.cat(residuals(networks, terms, at), 1).square().sum(1) for at in (start, theta))
    assert bool((after < before / 4).all())


@pytest.mark.parametrize("power", [1, 3])
def test_a_wide_network_errs_no_more_than_a_narrow_one(power):
    problem, settings = oscillation(power), {"seed": 0, "modes": 1, "steps": 100, "points": 128}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pinn.FitWarning)
        narrow, broad = (pinn.fit(problem, hidden=hidden, **settings) for hidden in ((16,), (48,)))
    assert broad.plain.dim > narrow.plain.dim and len(broad.theta) == 1
    # Before their last correction: after it both are as close as its features come.
    bare = [replace(one, networks=replace(one.networks, added=None)) for one in (narrow, broad)]
    left, less = (one.errors() for one in bare)
    assert less["equation"] < left["equation"]
    assert all(less[name] < max(left[name], 1e-4) for name in left)
    assert all(one.errors()["equation"] < other["equation"] / 10 for one, other in ((narrow, left), (broad, less)))
    if power == 1:
        rng = np.random.default_rng(0)
        points = {"t": rng.uniform(0, 1, 200), "k": rng.uniform(2, 4, 200)}
        truth = np.sin(points["k"] * points["t"])
        off = [np.abs(one.predict(points)["u"][0] - truth) for one in bare]
        assert off[1].mean() < off[0].mean() / 2
        for one in (narrow, broad):
            mean, sd = one.predict(points)["u"]
            assert (np.abs(mean - truth) <= 1.645 * sd).mean() > 0.8


def test_unknowns_stay_where_measurements_have_them():
    """At sharp scales the equation's rest must not speak of a constant that fields follow: the narrow fit has it."""
    problem = pinn.Problem(
        inputs={"t": (0.0, 2.0)},
        parameters={"start": (0.5, 2.0)},
        outputs=("u",),
        equation=lambda s, p: s.u_t + p.rate * s.u,
        conditions=[pinn.at(t=0.0, u=lambda s, p: s.start)],
        unknown={"rate": (1.0, 0.5)},
    )
    rng = np.random.default_rng(0)
    at = {"t": rng.uniform(0, 2, 40), "start": rng.uniform(1.25, 2.0, 40)}
    y = at["start"] * np.exp(-1.3 * at["t"]) + 0.05 * rng.normal(size=40)
    settings = {"seed": 0, "modes": 1, "steps": 120, "points": 128}
    narrow, broad = (pinn.fit(problem, {**at, "u": y}, hidden=hidden, **settings) for hidden in ((16,), (48,)))
    (mean, sd), (other, wide_sd) = narrow.constants["rate"], broad.constants["rate"]
    assert abs(other - mean) < 0.1 * sd and abs(np.log(wide_sd / sd)) < 0.1
    assert broad.errors()["equation"] < narrow.errors()["equation"]
