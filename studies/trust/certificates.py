"""Certificates of sets whose divergences are known by quadrature: ten families, errors over four orders of magnitude.

Claim: in each family the intervals (two standard errors) of certificates that are ok hold in at least 90 % of cases,
none is ok where a divergence exceeds twice the tolerance, and of sets that keep half of it eight in ten are ok.
How it could fail: a mode, a slab or a tail that no draw and no search meets; caution that refuses everything.
Cost: about one second of processor time a set, seventeen with the two dozen modes of ``frequency``.
"""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp

import bayesdd
from bayesdd.density.density import Density
from studies.trust.families import NAMES, Family, family

TITLE = "Certificates against quadrature"
NOTE = (
    "Hold: intervals of both divergences, two standard errors, where the certificate is ok. Asked too much: a "
    "divergence above twice the tolerance. Sound: both below half of it."
)
SETS = 100  # of each family
SETS_OF_ROWS = 10  # sets that share their data set
CHUNK = 25  # sets that one process certifies
FAR, SOUND = 1 / 2.2, 3.0  # tolerances, in units of the larger divergence: ok must not be said, and must be
LEAST, MOST = 1e-3, 1.0  # nats, tolerances that are asked
TAILS = 60  # points of each tail of the grid; 20,000 with one latent
ALONE = (20_001, 10_000)  # points of the dense part and of each tail with one latent


def parts(smoke: bool) -> dict[str, list[str]]:
    """Cell -> words for :func:`cell`."""
    if smoke:
        return {name: [name, "1", "2"] for name in ("normal_location", "mirrored")}
    return {
        f"{name}_{first}": [name, str(first), str(first + CHUNK)] for first in range(0, SETS, CHUNK) for name in NAMES
    }


def cell(name: str, first: str, end: str) -> dict[str, Any]:
    """Certificates and the truth of some sets of a family."""
    return {"family": name, "sets": [certified(name, at) for at in range(int(first), int(end))]}


def certified(name: str, at: int) -> dict[str, Any]:
    """One set: its divergences, the tolerance that was asked, and what the certificate said.

    Sets that are far enough are asked in turn at a tolerance that they miss and at one that they keep.
    """
    one = family(name, at // SETS_OF_ROWS)
    assert one.some is not None
    rows, weight = one.some(np.random.default_rng(10_000 + at))
    distilled = bayesdd.Distilled(rows, weight)
    reverse, forward = divergences(one, distilled)
    worst = max(reverse, forward)
    tolerance = worst * (FAR if at % 2 and worst * FAR > LEAST else SOUND)
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = bayesdd.certify(one.task, distilled, seed=at, tolerance=min(max(tolerance, LEAST), MOST))
    assert isinstance(said, bayesdd.Certificate)
    return {
        "at": at,
        "reverse": reverse,
        "forward": forward,
        **told(said),
        "tolerance": said.tolerance,
        "why": said.reasons[:2],
        "seconds": time.process_time() - begin,
    }


def told(said: bayesdd.Certificate) -> dict[str, Any]:
    """The verdict, and both KLs with their standard errors, nats."""
    return {"ok": said.ok, "said": [said.kl_reverse, said.kl_reverse_se, said.kl_forward, said.kl_forward_se]}


def divergences(one: Family, distilled: bayesdd.Distilled) -> tuple[float, float]:
    """KL(distilled, full) and KL(full, distilled) by quadrature, nats."""
    axes, widths = [], []
    for at, ((low, high), (left, right)) in enumerate(zip(one.box, one.fine, strict=True)):
        fine, coarse = (one.points[at], TAILS) if one.points else ALONE
        inner = np.linspace(left, right, fine)
        pieces = [np.linspace(low, left, coarse)[:-1]] if low < left else []
        pieces += [inner, *([np.linspace(right, high, coarse)[1:]] if high > right else [])]
        axis = np.concatenate(pieces)
        axes.append(torch.tensor(axis))
        widths.append(torch.tensor(np.gradient(axis)))
    grid = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    log_width = sum(
        torch.meshgrid(*[w.log() for w in widths], indexing="ij"), start=torch.zeros((), dtype=torch.float64)
    ).flatten()
    full = Density([(one.task, one.task.rows, None)])
    few = Density([(one.task, *distilled.hard())])
    p, q = (
        torch.cat([density.log_joint(some) for some in grid.split(20_000)]).numpy() + log_width.numpy()
        for density in (full, few)
    )
    ratio = p - q
    p, q = p - logsumexp(p), q - logsumexp(q)
    return float(np.exp(q) @ (q - p)), float(np.exp(p) @ (p - q)) if np.isfinite(ratio).all() else math.inf


def table(found: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a family: sets, share of intervals that hold, ok beyond twice the tolerance, share of sound sets ok."""
    names = [name for name in NAMES if any(part["family"] == name for part in found)]
    return pd.DataFrame(
        [_row(name, [one for part in found if part["family"] == name for one in part["sets"]]) for name in names]
    )


def _row(name: str, sets: list[dict[str, Any]]) -> dict[str, Any]:
    held, far, false, sound = [], 0, 0, []
    for one in sets:
        worst = max(one["reverse"], one["forward"])
        beyond = worst > 2 * one["tolerance"]
        far += beyond
        false += beyond and one["ok"]
        if one["ok"]:
            truth = one["reverse"], one["forward"]
            for value, error, true in zip(one["said"][::2], one["said"][1::2], truth, strict=True):
                held.append(abs(value - true) <= 2 * error + 1e-9)
        if worst < one["tolerance"] / 2:
            sound.append(one["ok"])
    share = float(np.mean(held)) if held else float("nan")
    passed = float(np.mean(sound)) if sound else float("nan")
    return {
        "family": name.replace("_", " "),
        "sets": len(sets),
        "intervals": len(held),
        "hold": share,
        "asked too much": far,
        "ok though far": false,
        "sound": len(sound),
        "sound and ok": passed,
        "seconds a set": float(np.median([one["seconds"] for one in sets])),
        "met": bool(false == 0 and not share < 0.9 and not passed < 0.8),
    }
