"""``distill`` on small random targets with several modes, judged by quadrature.

Claim: no set is ok whose divergences exceed twice the tolerance. The share that is certified and the seconds are
stated, not claimed: with several modes few rows often cannot do it, and then it must be said.
How it could fail: search and certificate that overlook the same mode.
Cost: ten seconds of processor time a target.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import bayesdd
from bayesdd.density.density import Density
from studies.trust.certificates import divergences, told
from studies.trust.families import Family, mirrored, robust

TITLE = "Small targets with several modes"
NOTE = (
    "Rows are random, the size is 2 to 6, the tolerance between 0.001 and 1 nat, a seed a target. Several modes: at "
    "least two maxima of the full posterior's density above a thousandth of its highest. False ok: certified, with a "
    "divergence above twice the tolerance."
)
EACH, CHUNK = 67, 5  # targets of a kind, and of a process: three kinds make 201
BOX = 30.0  # half the width of the grid: ten prior sds
BULK = 8.0  # half the width of its dense part
HIGH = math.log(1e-3)  # of the highest density: lower maxima are not counted


def wave(x: Tensor, y: Tensor) -> None:
    """A phase, known by a few noisy values of a sine: it repeats itself."""
    t = pyro.sample("t", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal((t * x).sin(), 0.4), obs=y)


def parts(smoke: bool) -> dict[str, list[str]]:
    """Cell -> words for :func:`cell`."""
    if smoke:
        return {"smoke": ["mirrored", "0", "1"]}
    return {
        f"{kind}_{first}": [kind, str(first), str(min(first + CHUNK, EACH))]
        for first in range(0, EACH, CHUNK)
        for kind in KINDS
    }


def cell(kind: str, first: str, end: str) -> dict[str, Any]:
    """Some targets of a kind, distilled and judged."""
    return {"kind": kind, "targets": [_judged(kind, at) for at in range(int(first), int(end))]}


def table(found: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a kind."""
    rows = []
    for kind in KINDS:
        targets = [one for part in found if part["kind"] == kind for one in part["targets"]]
        if not targets:
            continue
        false = sum(one["ok"] and max(one["reverse"], one["forward"]) > 2 * one["tolerance"] for one in targets)
        several = [one for one in targets if one["modes"] > 1]
        rows.append(
            {
                "target": kind,
                "targets": len(targets),
                "several modes": len(several),
                "false ok": false,
                "certified": float(np.mean([one["ok"] for one in targets])),
                "of several modes": float(np.mean([one["ok"] for one in several])) if several else float("nan"),
                "seconds": float(np.median([one["seconds"] for one in targets])),
                "met": false == 0,
            }
        )
    return pd.DataFrame(rows)


def _judged(kind: str, at: int) -> dict[str, Any]:
    rng = np.random.default_rng(5000 + at)
    model, rows = KINDS[kind](rng)
    task = bayesdd.Task(model, rows)
    size, tolerance = int(rng.integers(2, 7)), float(10 ** rng.uniform(-3, 0))
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bayesdd.CertificateWarning)
        warnings.simplefilter("ignore", bayesdd.DataNote)
        distilled = bayesdd.distill(task, size, tolerance, seed=at, progress=False)
    seconds = time.process_time() - begin
    reverse, forward = divergences(Family(task, None, [(-BOX, BOX)], [(-BULK, BULK)]), distilled)
    certificate = distilled.certificate
    assert isinstance(certificate, bayesdd.Certificate)
    return {
        "at": at,
        "size": size,
        "tolerance": tolerance,
        **told(certificate),
        "reverse": reverse,
        "forward": forward,
        "modes": _modes(task),
        "seconds": seconds,
    }


def _modes(task: bayesdd.Task) -> int:
    """Maxima of the full posterior's density on the dense part of the grid."""
    grid = torch.linspace(-BULK, BULK, 8001, dtype=torch.float64)[:, None]
    height = Density([(task, task.rows, None)]).log_joint(grid)
    inner = height[1:-1]
    return int(((inner > height[:-2]) & (inner > height[2:]) & (inner > height.max() + HIGH)).sum())


def _mirrored(rng: np.random.Generator) -> tuple[Callable[..., None], dict[str, Any]]:
    n, t = int(rng.integers(5, 40)), rng.uniform(0.7, 2.5)
    x = 10 ** rng.uniform(-2, 0) * rng.normal(size=n)
    return mirrored, {"x": x, "y": t**2 + t * x + 0.5 * rng.normal(size=n)}


def _clusters(rng: np.random.Generator) -> tuple[Callable[..., None], dict[str, Any]]:
    n = int(rng.integers(6, 14))
    return robust, {"y": rng.choice([-1.0, 1.0], n) * rng.uniform(1, 4) + 0.5 * rng.standard_t(2, n)}


def _wave(rng: np.random.Generator) -> tuple[Callable[..., None], dict[str, Any]]:
    n = int(rng.integers(8, 30))
    x = np.round(rng.uniform(0, 4, n)) + rng.choice([0.0, 0.1]) * rng.normal(size=n)
    return wave, {"x": x, "y": np.sin(rng.normal(0, 2) * x) + 0.4 * rng.normal(size=n)}


KINDS = {"mirrored": _mirrored, "clusters": _clusters, "wave": _wave}
