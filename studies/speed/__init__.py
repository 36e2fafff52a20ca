r"""Is distilling a million rows and sampling the few faster than sampling the million, and as accurate?

Question: logistic regression, N = 1e4 to 1e6, d = 10 and 50: wall and processor seconds, passes over the rows, peak
memory, effective draws a second and errors of (a) ``distill`` + ``sample``, (b) NumPyro NUTS, (c) Pyro NUTS,
(d) NumPyro HMCECS, (e) the Laplace fit, (g) the same with importance weights by all rows, all of the full data, beside
(f) one bare float32 sweep of 1,000 particles.
Claim: at N = 1e6, d = 10, (a) is at least 10 times faster than (b) after compilation, its distillation takes no longer
than (f), the distilled posterior's means are within 0.05 sds and its sds within 5% of the exact ones, and it is
certified with both KLs at most 0.01 nats.
How it could fail: a rival that is given more threads or less compilation (affinity binds all methods to the same
cores, compilation is taken out of all: of (a) what a first run in the process takes longer than a second); means that
look right because the reference shares the method's error (the reference is written from the formulas, with its own
standard error); effective draws that a chain in the wrong place has too.
Cost: ten minutes on two cores at d = 10 (``--covariates 10``), the better part of an hour with d = 50. Each cell
(rows, covariates, method) is a process and a JSON file: an interrupted run continues where it stopped. (b) and (d)
need the extra ``bench``; without it they are left out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bayesdd import Refusal
from studies.shared import cells, stamps, tables
from studies.shared.commands import named
from studies.speed import figure, truth
from studies.speed.cell import PYRO_MOST, SIZES, TRUTH, TRUTH_DRAWS, measure
from studies.speed.methods import METHODS
from studies.speed.table import shown, summary, versions

ROWS = (10_000, 100_000, 1_000_000)


def main(
    *,
    smoke: bool = False,
    results: str | Path = cells.RESULTS,
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
        measured = {f"2000-3-{name}": measure(name, 2000, 3, size=6, draws=100) for name in methods}
        measured[f"2000-3-{TRUTH}"] = truth.moments(*truth.rows(2000, 3), TRUTH_DRAWS)
        return summary(measured, claim=None)
    if unknown := sorted(set(covariates) - set(SIZES)):
        raise Refusal(f"speed has no cells of {unknown[0]} covariates; there are {' and '.join(map(str, SIZES))}.")
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
    names = named(only, [f"{count}-{dim}-{method}" for count, dim, method in every], "cell")
    wanted = {name: ["-m", "studies.speed", "--cell", name, str(threads)] for name in names}
    module = "studies.speed.cell"
    measured = cells.run(wanted, Path(results) / "speed", module, threads=threads, jobs=1)
    table = summary(measured, claim=(1_000_000, 10))
    where = stamps.machine(threads) + ("" if lacking else ", " + versions("jax", "numpyro"))
    table.attrs["notes"] += [*notes, stamps.last_line(where, [stamps.source_hash(module)])]
    target = None if only else Path(results) / "speed.md"
    tables.report(target, shown(table), notes=table.attrs["notes"])
    if target is not None:
        figure.draw(table, target.with_suffix(".png"))
    return table
