"""Which distillation method is right depends on the inference task: published methods judged by the posterior.

Question: given one task, its rows and room for M synthetic ones, whose rows keep the posterior, and at what cost?
Claim: no published method is the best on all tasks. The certificate can be trusted: whatever it calls ok has both true
KLs within its tolerance, and sets too small for the bound of the theory are never called ok.
How it could fail: methods run at their authors' settings, which may suit other tasks than these; a KL is a strict judge
of methods that aim at point estimates or predictions, which is why errors of the means and held-out predictions stand
beside it; true KLs come from importance sampling where no formula exists.
Cost: about 45 minutes on two cores. Each cell (task, seed, M, method) is a JSON file: an interrupted run continues
where it stopped. Simulated data are drawn anew with every seed, and real rows are split anew into kept and held-out
ones. ds1 is no part of the project: name the folder that holds ds1_large.npz by ``--data`` or BAYESDD_DATA, or it is
left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from studies.lens import figure
from studies.lens.cases import CASES, Case, staged
from studies.lens.cell import Cell, kept, measure, source
from studies.lens.methods import OURS, UNIFORM, by_name
from studies.lens.table import KEYS, legend, shown, summary, winners
from studies.lens.workers import run
from studies.shared import glm_cases, stamps, tables
from studies.shared.cells import RESULTS

SMOKE = ("gaussian_mean", "randhie")  # all methods on the first, two on the second


def main(
    *,
    smoke: bool = False,
    data: str | Path | None = None,
    results: str | Path = RESULTS,
    seeds: int = 5,
    only: str = "",
    threads: int = 1,
    jobs: int = 2,
    limit: float = 10.0,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the tables and writes ``results/lens.md`` and ``results/lens.png``.

    Args:
        smoke: Tiny tasks, M = 2 P, one seed, quick settings, in this process; nothing is written.
        data: Folder that holds ds1_large.npz; default the environment's BAYESDD_DATA.
        results: Folder of the table and the figure; the cells lie in ``lens/`` in it.
        seeds: Seeds a task.
        only: Only tasks whose name contains this; the tables are then printed, not written.
        threads: Threads a process.
        jobs: Processes at a time.
        limit: Processor seconds of seed 0 above which a cell is not measured with the other seeds; ``distill`` always
            is.

    Returns:
        One row a task, size and method, as ``table.summary`` says; ``attrs`` holds ``winners`` (who wins) and
        ``notes`` (the lines below the tables).
    """
    data = data or os.environ.get("BAYESDD_DATA") or None
    chosen, notes = glm_cases.chosen(CASES, only, data)
    if smoke:
        chosen = [case for case in chosen if case.name in SMOKE]
        measured = _smoke(chosen)
    else:
        print("".join(f"{note}\n" for note in notes), end="", flush=True)
        folder = Path(results) / "lens"
        folder.mkdir(parents=True, exist_ok=True)
        measured = _measured(chosen, data, folder, seeds, threads, jobs, limit)
    if not measured:
        return pd.DataFrame(columns=[*KEYS, "met"])
    table = summary(chosen, by_name(), measured)
    slow = {f"{cell.method} on {cell.task}, M = {cell.size}" for cell, m in measured.items() if _slow(m, cell, limit)}
    notes += [f"seconds over {limit:g}, hence one seed only: {'; '.join(sorted(slow))}"] if slow else []
    where = f"{stamps.machine(threads)}; {jobs} processes at a time"
    table.attrs = {"winners": winners(table), "notes": [*legend(), *notes, stamps.last_line(where, [source()])]}
    target = None if smoke or only else Path(results) / "lens.md"
    parts = ("## Who wins", table.attrs["winners"], "## All methods", shown(table))
    tables.report(target, *parts, notes=table.attrs["notes"])
    if target is not None:
        figure.draw(table, chosen, target.with_suffix(".png"))
    return table


def _smoke(cases: Sequence[Case]) -> dict[Cell, dict[str, Any]]:
    found = {}
    for case in cases:
        size = 2 * staged(case.name, 0, None, True).task.dim
        for method in by_name().values():
            if case.name == SMOKE[0] or method.name in (OURS, UNIFORM):
                cell = Cell(case.name, 0, size, method.name)
                found[cell] = measure(cell, smoke=True)
    return found


def grid(cases: Sequence[Case], seeds: int) -> list[Cell]:
    """All cells, seed 0 of everything first; those of one task and seed in a row, since they share its rows."""
    return [
        Cell(case.name, seed, size, method)
        for seed in range(seeds)
        for case in cases
        for size in case.sizes
        for method in sorted(by_name(), key=lambda name: name != UNIFORM)
    ]


def _measured(
    cases: Sequence[Case], data: str | Path | None, folder: Path, seeds: int, threads: int, jobs: int, limit: float
) -> dict[Cell, dict[str, Any]]:
    arguments = ["-m", "studies.lens", "--worker", str(folder), str(threads)]
    arguments += [] if data is None else [str(Path(data).resolve())]
    every = grid(cases, seeds)
    first, others = ([cell for cell in every if (cell.seed == 0) == now] for now in (True, False))
    found: dict[Cell, dict[str, Any]] = {}
    for some in (first, others):
        some = [cell for cell in some if not _slow(found.get(replace(cell, seed=0), {}), cell, limit)]
        missing = [cell for cell in some if kept(cell, folder, threads) is None]
        failed = run(missing, arguments, jobs=min(jobs, len(missing)), threads=threads) if missing else {}
        for cell in some:
            lost = {"error": f"failed: {failed.get(cell, 'not measured')}"}
            found[cell] = kept(cell, folder, threads) or lost
    return found


def _slow(first: dict[str, Any], cell: Cell, limit: float) -> bool:
    """Whether a cell takes too long to be repeated, by its first seed."""
    return cell.method != OURS and float(first.get("seconds", 0.0)) > limit
