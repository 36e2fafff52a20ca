r"""Is distilling a million rows and sampling the few faster than sampling the million, and as accurate?

Question: logistic regression, N = 1e4 to 1e6, d = 10 and 50: wall and processor seconds, passes over the rows, peak
memory, effective draws a second and errors of (a) ``distill`` + ``sample``, (b) NumPyro NUTS, (c) Pyro NUTS,
(d) NumPyro HMCECS, (e) the Laplace fit, all of the full data, beside (f) one bare float32 sweep of 1,000 particles.
Claim: at N = 1e6, d = 10, (a) is at least 10 times faster than (b) after compilation, its distillation takes no longer
than (f), the distilled posterior's means are within 0.05 sds and its sds within 5% of the exact ones, and it is
certified with both KLs at most 0.01 nats.
How it could fail: a rival that is given more threads or less compilation (affinity binds all methods to the same
cores, compilation is taken out); means that look right because the reference shares the method's error (the reference
is written from the formulas, with its own standard error); effective draws that a chain in the wrong place has too.
Cost: ten minutes on two cores at d = 10 (``--covariates 10``), the better part of an hour with d = 50. Each cell
(rows, covariates, method) is a process and a JSON file: an interrupted run goes on where it stopped. (b) and (d) need
the extra ``bench``; without it they are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from studies.shared import cells
from studies.speed import table, truth
from studies.speed.methods import METHODS

SIZES = {10: 30, 50: 100}  # covariates -> synthetic rows
ROWS = (10_000, 100_000, 1_000_000)
DRAWS, CHAINS = 1000, 4
PYRO_MOST = 100_000  # rows
TRUTH = "truth"
TRUTH_DRAWS = 4000  # at 100,000 rows or fewer, else a quarter: the corrections that they average shrink with the rows


def main(
    *,
    smoke: bool = False,
    results: str | Path = cells.ROOT / "studies" / "results",
    threads: int = 2,
    rows: int = ROWS[-1],
    covariates: Sequence[int] = tuple(SIZES),
    only: str = "",
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes ``results/speed.md`` and ``results/speed.png``.

    Args:
        smoke: 2,000 rows, d = 3, few draws, the methods that need no extra, in this process; nothing is written.
        results: Folder of the table and the figure; the cells lie in ``speed/`` in it.
        threads: Threads and cores of each process.
        rows: Most rows.
        covariates: Numbers of covariates, of 10 and 50.
        only: Only cells whose name contains this; the table is then printed, not written.

    Returns:
        One row a cell; ``met`` says whether the claim holds where it is made, ``attrs["notes"]`` the lines below it.
    """
    if smoke:
        methods = [name for name in METHODS if not name.startswith("numpyro")]
        truth = truth.moments(*truth.rows(2000, 3), TRUTH_DRAWS)
        cells = {f"2000-3-{name}": measure(name, 2000, 3, size=6, draws=100) for name in methods}
        cells["2000-3-truth"] = truth
        return table.table(cells, claim=None)
    every = [
        (count, dim, name)
        for dim in covariates
        for count in (*ROWS, 10 * ROWS[-1])
        if count <= rows
        for name in (TRUTH, *METHODS)
        if not (name == "pyro_nuts" and count > PYRO_MOST)
    ]
    lacking = importlib.util.find_spec("numpyro") is None
    notes = ["left out: NumPyro is not installed (pip install 'bayesdd[bench]')"] if lacking else []
    every = [cell for cell in every if not (lacking and cell[2].startswith("numpyro"))]
    commands = {
        f"{count}-{dim}-{name}": ["-m", "studies.speed", "--cell", f"{count}-{dim}-{name}", "--threads", str(threads)]
        for count, dim, name in every
        if only in f"{count}-{dim}-{name}"
    }
    measured = cells.run(commands, Path(results) / "speed", "speed", threads=threads, jobs=1)
    table = table.table(measured, claim=(1_000_000, 10))
    bench = "" if lacking else ", " + table.versions("jax", "numpyro")
    table.attrs["notes"] += [*notes, cells.machine(threads) + bench + f"; source {cells.source_hash('speed')}"]
    text = table.markdown(table)
    print(text)
    if not only:
        target = Path(results) / "speed.md"
        cells.write(target, text)
        table.figure(table, Path(results) / "speed.png")
        print(f"wrote {target}")
    return table


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
        found |= {"mean": flat.mean(0).tolist(), "sd": flat.std(0).tolist(), "ess": table.least_ess(run.draws)}
        found["ess"] *= run.scaled
    return found | (run.extra or {})


def _cell(name: str, threads: int) -> dict[str, Any]:
    """Measures a cell on as many cores as it has threads: XLA takes all that it finds."""
    import torch

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)
    count, dim, method = name.split("-")
    return measure(method, int(count), int(dim))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m studies.speed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="2,000 rows, few draws: seconds")
    parser.add_argument("--results", default=cells.ROOT / "studies" / "results", help="default: studies/results")
    parser.add_argument(
        "--threads", type=int, default=2, help="threads and cores of each process; default: %(default)s"
    )
    parser.add_argument("--rows", type=int, default=ROWS[-1], help="most rows; default: %(default)s")
    parser.add_argument(
        "--covariates", nargs="+", type=int, choices=SIZES, default=list(SIZES), help="default: %(default)s"
    )
    parser.add_argument("--only", default="", help="only cells (ROWS-COVARIATES-METHOD) whose name contains this")
    parser.add_argument("--cell", help="measure one cell, print its JSON")
    settings = vars(parser.parse_args())
    if (cell := settings.pop("cell")) is not None:
        print(json.dumps(_cell(cell, settings["threads"])))
    else:
        made = main(**settings)
        sys.exit(0 if "met" not in made or bool(made["met"].all()) else 1)
