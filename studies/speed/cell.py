"""One cell of ``speed``: a method, or the exact moments, on so many rows and covariates."""

from __future__ import annotations

import os
import time
import warnings
from typing import Any

import numpy as np
import torch
import xarray as xr

from studies.shared import cells
from studies.speed import truth
from studies.speed.methods import METHODS
from studies.speed.truth import Array

SIZES = {10: 30, 50: 100}  # covariates -> synthetic rows
DRAWS, CHAINS = 1000, 4
PYRO_MOST = 100_000  # rows
TRUTH = "truth"
TRUTH_DRAWS = 4000  # at 100,000 rows or fewer, else a quarter: the corrections that they average shrink with the rows


def cell(name: str, threads: str) -> dict[str, Any]:
    """Measures a cell on as many cores as it has threads: XLA takes all that it finds."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    torch.set_num_threads(int(threads))
    count, dim, method = name.split("-")
    return measure(method, int(count), int(dim))


def measure(name: str, count: int, dim: int, *, size: int = 0, draws: int = DRAWS) -> dict[str, Any]:
    """One cell.

    Args:
        name: A method, or ``truth``.
        count: Number of rows.
        dim: Number of covariates.
        size: Number of synthetic rows; default by the covariates.
        draws: Draws a chain of (a) and (e); (b), (c), (d) take half as warm-up and keep half.

    Returns:
        What goes into the cell's file.
    """
    x, y = truth.rows(count, dim)
    begin = time.perf_counter()
    if name == TRUTH:
        found = truth.moments(x, y, TRUTH_DRAWS if count <= PYRO_MOST else TRUTH_DRAWS // 4)
        return found | {"seconds": time.perf_counter() - begin}
    before = time.process_time()
    run = METHODS[name](x, y, size or SIZES[dim], draws, CHAINS)
    wall, processor, memory = time.perf_counter() - begin, time.process_time() - before, cells.peak_memory()
    found = {
        "seconds": run.seconds,
        "compiled": run.compiled,
        "wall": wall,
        "processor": processor,
        "memory": memory,
        "sweeps": run.passes[0],
        "gradients": run.passes[1],
        "scaled": run.scaled,
    }
    if run.draws is not None:
        flat = run.draws.reshape(-1, dim)
        found |= {"mean": flat.mean(0).tolist(), "sd": flat.std(0).tolist(), "ess": _least_ess(run.draws)}
        found["ess"] *= run.scaled
    return found | (run.extra or {})


def _least_ess(draws: Array) -> float:
    """Least bulk effective sample size over parameters of draws ``(chains, draws, d)``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.23 announces 1.x on import
        import arviz
    return float(np.asarray(arviz.ess(xr.Dataset({"w": (("chain", "draw", "i"), draws)}))["w"]).min())
