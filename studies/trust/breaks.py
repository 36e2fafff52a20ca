"""The four ways in which certificates were once wrong, and twenty variations of them.

Claim: no set is ok whose divergences exceed twice the tolerance, and beside each a sound set of the same task is ok.
How it could fail: aliases that search and chains both miss, a small mode far off, mass that is no mode, and tails that
weights of normal draws do not reach.
Cost: about ten seconds of processor time a variation with aliases, two of the others.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import bayesdd
from studies.trust.certificates import divergences, told
from studies.trust.families import Columns, Family, frequency, proportion, rate, robust

TITLE = "Four earlier breaks"
NOTE = (
    "The first variation is the break as it was found. Far: sets with a divergence above twice the tolerance, by "
    "quadrature. Sound: a set of the same task whose divergences are below half of the tolerance. Hold: intervals of "
    "both divergences, two standard errors, of sound sets."
)
CHUNK = 3  # variations that one process tries
CHANGED = 1.001  # of the real rows' weights: a sound set


class Pair(NamedTuple):
    """A variation: a family with a set that is far and one that is sound, each with the tolerance that is asked."""

    family: Family
    far: tuple[bayesdd.Distilled, float]
    sound: tuple[bayesdd.Distilled, float]


def parts(smoke: bool) -> dict[str, list[str]]:
    """Cell -> words for :func:`cell`."""
    if smoke:
        return {"smoke": ["small far mode", "0", "1"]}
    return {
        f"{name.replace(' ', '_')}_{first}": [name, str(first), str(first + CHUNK)]
        for name, variations in BREAKS.items()
        for first in range(0, len(variations), CHUNK)
    }


def cell(name: str, first: str, end: str) -> dict[str, Any]:
    """What certificates say of some variations of a break."""
    return {"break": name, "pairs": [_judged(name, at) for at in range(int(first), int(end))]}


def table(found: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a break."""
    rows = []
    for name in BREAKS:
        pairs = [one for part in found if part["break"] == name for one in part["pairs"]]
        if pairs:
            rows.append(_row(name, [one["far"] for one in pairs], [one["sound"] for one in pairs]))
    return pd.DataFrame(rows)


def _row(name: str, far: list[dict[str, Any]], sound: list[dict[str, Any]]) -> dict[str, Any]:
    beyond = [one for one in far if max(one["reverse"], one["forward"]) > 2 * one["tolerance"]]
    kept = [one for one in sound if max(one["reverse"], one["forward"]) < one["tolerance"] / 2]
    held = [
        abs(one["said"][place] - one[side]) <= 2 * one["said"][place + 1] + 1e-9
        for one in kept
        for place, side in ((0, "reverse"), (2, "forward"))
    ]
    false, passed = sum(one["ok"] for one in beyond), sum(one["ok"] for one in kept)
    return {
        "break": name,
        "variations": len(far),
        "far": len(beyond),
        "ok though far": false,
        "sound": len(kept),
        "sound and ok": passed,
        "intervals": len(held),
        "hold": float(np.mean(held)) if held else float("nan"),
        "seconds a set": float(np.median([one["seconds"] for one in (*far, *sound)])),
        "met": false == 0 and passed >= 0.8 * len(kept),
    }


def _judged(name: str, at: int) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bayesdd.CertificateWarning)  # of sets that distill knows to be far
        family, far, sound = BREAKS[name][at]()
    return {"at": at, "far": _said(family, *far, at), "sound": _said(family, *sound, at)}


def _said(family: Family, distilled: bayesdd.Distilled, tolerance: float, seed: int) -> dict[str, Any]:
    """The truth, and what ``certify`` says; ok also where ``distill`` has said so."""
    reverse, forward = divergences(family, distilled)
    begin = time.process_time()
    said = bayesdd.certify(family.task, distilled, seed=101 + seed, tolerance=tolerance)
    seconds = time.process_time() - begin
    assert isinstance(said, bayesdd.Certificate)
    found = {**told(said), "reverse": reverse, "forward": forward, "tolerance": tolerance, "seconds": seconds}
    return found | {"ok": said.ok or (distilled.certificate is not None and distilled.certificate.ok)}


def _made(task: bayesdd.Task, box: list[tuple[float, float]], fine: list[tuple[float, float]], *points: int) -> Family:
    return Family(task, None, box, fine, points)


def _set(rows: Columns, *weight: float) -> bayesdd.Distilled:
    return bayesdd.Distilled(rows, torch.tensor(weight, dtype=torch.float64))


def _aliases(seed: int, size: int, tolerance: float, omega: float, rows: int) -> Pair:
    """A sinusoid at whole times: ``distill`` keeps the modes that it has met, and may lack aliases of them."""
    rng = np.random.default_rng(0)
    t = np.arange(1.0, 1.0 + rows)
    task = bayesdd.Task(frequency, {"t": t, "y": 1.2 * np.sin(omega * t) + 0.5 * rng.normal(size=rows)})
    box = [(-5.0, 5.0), (-14.0, 14.0)]
    return Pair(
        _made(task, box, box, 201, 1401),
        (bayesdd.distill(task, size, tolerance, seed=seed, progress=False), tolerance),
        (_set(task.data, *[CHANGED] * rows), tolerance),
    )


def _either(y: Tensor, lacking: Tensor, mass: float, distance: float) -> None:
    """A location, or with little mass another one far off: rows that lack it say nothing of that."""
    t = pyro.sample("t", dist.Normal(0.0, 3.0 * distance))
    with pyro.plate("data", len(y)):
        here, there = (dist.Normal(t + shift, 1.0).log_prob(y) for shift in (0.0, distance))
        # Not logaddexp: its second derivative is not finite where one term is next to nothing.
        both = torch.stack([here + math.log1p(-mass), there + math.log(mass)]).logsumexp(0)
        pyro.factor("row", torch.where(lacking > 0.5, here, both))


def _small_far_mode(mass: float, distance: float, tolerance: float) -> Pair:
    columns = {"y": np.array([3.0]), "lacking": np.array([0.0])}
    task = bayesdd.Task(partial(_either, mass=mass, distance=distance), columns)
    lacking = {**task.data, "lacking": torch.ones(1, dtype=torch.float64)}
    return Pair(
        _made(task, [(-20 * distance, 20 * distance)], [(-distance - 40, 40)]),
        (_set(lacking, 1.0), tolerance),
        (_set(task.data, CHANGED), tolerance),
    )


def _spike(y: Tensor, clean: Tensor, sd: float, width: float, share: float) -> None:
    """A row that may be an outlier, at a prior of any width; a clean one is none."""
    t = pyro.sample("t", dist.Normal(0.0, sd))
    with pyro.plate("data", len(y)):
        near = dist.Normal(t, 1.0).log_prob(y)
        mixed = torch.logaddexp(near + math.log1p(-share), torch.full_like(near, math.log(share) - math.log(width)))
        pyro.factor("row", torch.where(clean > 0.5, near, mixed))


def _spike_and_slab(sd: float, width: float, share: float, tolerance: float) -> Pair:
    columns = {"y": np.array([3.0]), "clean": np.array([0.0])}
    task = bayesdd.Task(partial(_spike, sd=sd, width=width, share=share), columns)
    clean = {**task.data, "clean": torch.ones(1, dtype=torch.float64)}
    return Pair(
        _made(task, [(-8 * sd, 8 * sd)], [(-40, 46)]),
        (_set(clean, 1.0), tolerance),
        (_set(task.data, CHANGED), tolerance),
    )


def _tail(task: bayesdd.Task, box: tuple[float, float], fine: tuple[float, float], log_weight: float) -> Pair:
    """The real rows at other weights, asked at a tolerance that they miss and at one that they keep."""
    family = _made(task, [box], [fine])
    changed = _set(task.data, *[math.exp(log_weight)] * task.size)
    worst = max(divergences(family, changed))
    return Pair(family, (changed, worst / 2.2), (changed, 3.0 * worst))


def _no_success(rows: int, log_weight: float) -> Pair:
    return _tail(bayesdd.Task(proportion, {"y": np.zeros(rows)}), (-60.0, 5.0), (-18.0, -2.0), log_weight)


def _no_event(rows: int, log_weight: float) -> Pair:
    return _tail(bayesdd.Task(rate, {"y": np.zeros(rows)}), (-80.0, 6.0), (-18.0, 3.0), log_weight)


def _few_rows(seed: int, log_weight: float) -> Pair:
    rows = {"y": np.random.default_rng(seed).standard_t(2, 6)}
    return _tail(bayesdd.Task(robust, rows), (-2000.0, 2000.0), (-25.0, 30.0), log_weight)


BREAKS: dict[str, tuple[Callable[[], Pair], ...]] = {
    "aliases that the search missed": (
        partial(_aliases, 1, 6, 0.05, 1.1, 12),
        partial(_aliases, 0, 6, 0.05, 1.1, 12),
        partial(_aliases, 4, 6, 0.5, 1.1, 12),
        partial(_aliases, 2, 5, 0.05, 0.8, 12),
        partial(_aliases, 3, 8, 0.01, 1.4, 12),
        partial(_aliases, 5, 6, 0.05, 1.1, 16),
    ),
    "small far mode": (
        partial(_small_far_mode, 0.03, 40.0, 0.005),
        partial(_small_far_mode, 0.01, 40.0, 0.003),
        partial(_small_far_mode, 0.002, 40.0, 0.05),
        partial(_small_far_mode, 0.03, 12.0, 0.005),
        partial(_small_far_mode, 0.03, 300.0, 0.005),
        partial(_small_far_mode, 0.1, 100.0, 1.0),
    ),
    "mass that is no mode": (
        partial(_spike_and_slab, 1e4, 2e3, 0.05, 0.05),
        partial(_spike_and_slab, 1e2, 30.0, 0.05, 0.05),
        partial(_spike_and_slab, 1e4, 5e3, 0.05, 1.0),
        partial(_spike_and_slab, 1e6, 1e6, 0.05, 0.05),
        partial(_spike_and_slab, 1e3, 1e3, 0.01, 0.01),
        partial(_spike_and_slab, 3e2, 1e2, 0.2, 0.3),
    ),
    "exponential and heavy tails": (
        partial(_no_success, 3000, 0.047),
        partial(_no_success, 300, -0.1),
        partial(_no_success, 3000, 0.4),
        partial(_no_event, 10, 0.05),
        partial(_no_event, 40, -0.3),
        partial(_few_rows, 0, 0.1),
    ),
}
