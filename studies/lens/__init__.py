"""Which distillation method is right depends on the inference task: published methods through the posterior's lens.

Question: given one task, its rows and room for M synthetic ones, whose rows keep the posterior, and at what cost?
Claim: no published method is the best on all tasks; the certificate knows: whatever it calls ok has both true KLs
within its tolerance, and rows too few for the bound of the theory never are.
How it could fail: methods at their defaults may be tuned for other tasks than these (they are their authors'
settings); a KL is a strict judge of methods that aim at point estimates or predictions, which is why errors of the
means and held-out predictions stand beside it; true KLs come from importance sampling where no formula exists.
Cost: about 45 minutes on two cores. Each cell (task, seed, M, method) is a JSON file: an interrupted run goes on where
it stopped. Simulated data are drawn anew with every seed; real rows are split anew into kept and held-out ones. ds1 is
no part of the project: name the folder that holds ds1_large.npz by ``--data`` or BAYESDD_DATA, or it is left out.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from studies.lens import table
from studies.lens.cases import CASES, Case, staged
from studies.lens.cell import Cell, kept, measure, source_hash
from studies.lens.figure import figure
from studies.lens.methods import OURS, UNIFORM, methods
from studies.lens.workers import run, work
from studies.shared import cells, tables

SMOKE = ("gaussian_mean", "randhie")  # the second without the project's other objectives: bilevel alone takes a minute


def main(
    *,
    smoke: bool = False,
    data: str | Path | None = None,
    results: str | Path = cells.ROOT / "studies" / "results",
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
        One row a task, size and method, as ``_lens_table.summary`` says; ``attrs`` holds ``winners`` (who wins) and
        ``notes`` (the lines below the tables).
    """
    data = data or os.environ.get("BAYESDD_DATA") or None
    chosen = [case for case in CASES if only in case.name]
    if not chosen:
        raise ValueError(f"no task's name contains {only!r}; the names are {', '.join(case.name for case in CASES)}")
    lacking = [case for case in chosen if case.file and (data is None or not (Path(data) / case.file).exists())]
    notes = [f"skipped {case.name}: its data are not there (--data DIR or BAYESDD_DATA)" for case in lacking]
    if smoke:
        chosen = [case for case in chosen if case.name in SMOKE]
        measured = _smoke(chosen)
    else:
        print("".join(f"{note}\n" for note in notes), end="", flush=True)
        chosen = [case for case in chosen if case not in lacking]
        folder = Path(results) / "lens"
        folder.mkdir(parents=True, exist_ok=True)
        measured = _measured(chosen, data, folder, seeds, threads, jobs, limit)
    if not measured:
        return pd.DataFrame(columns=[*table.KEYS, "met"])
    table = table.summary(chosen, methods(), measured)
    slow = {f"{cell.method} on {cell.task}, M = {cell.size}" for cell, m in measured.items() if _slow(m, cell, limit)}
    notes += [f"seconds over {limit:g}, hence one seed only: {'; '.join(sorted(slow))}"] if slow else []
    line = cells.machine(threads) + f"; {jobs} processes at a time; source {source_hash()}"
    table.attrs = {"winners": table.winners(table), "notes": [*table.legend(), *notes, line]}
    text = _text(table)
    print(text)
    if not smoke and not only:
        _write(Path(results), text, table, chosen)
    return table


def _smoke(cases: Sequence[Case]) -> dict[Cell, dict[str, Any]]:
    found = {}
    for case in cases:
        size = 2 * staged(case.name, 0, None, True).task.dim
        for method in methods().values():
            if case.name == SMOKE[0] or method.published or method.name == OURS:
                cell = Cell(case.name, 0, size, method.name)
                found[cell] = measure(cell, smoke=True)
    return found


def cells(cases: Sequence[Case], seeds: int) -> list[Cell]:
    """All cells, seed 0 of everything first; those of one task and seed in a row, since they share its rows."""
    return [
        Cell(case.name, seed, size, method)
        for seed in range(seeds)
        for case in cases
        for size in case.sizes
        for method in sorted(methods(), key=lambda name: name != UNIFORM)
    ]


def _measured(
    cases: Sequence[Case], data: str | Path | None, folder: Path, seeds: int, threads: int, jobs: int, limit: float
) -> dict[Cell, dict[str, Any]]:
    arguments = ["-m", "studies.lens", "--worker", "--results", str(folder.parent), "--threads", str(threads)]
    arguments += [] if data is None else ["--data", str(Path(data).resolve())]
    every = cells(cases, seeds)
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


def _text(table: pd.DataFrame) -> str:
    winners, all_rows = table.attrs["winners"], table.shown(table)
    parts = ["## Who wins", tables.markdown(winners), "## All methods", tables.markdown(all_rows)]
    return "\n".join([*parts, *(f"- {note}" for note in table.attrs["notes"])]) + "\n"


def _write(results: Path, text: str, table: pd.DataFrame, cases: Sequence[Case]) -> None:
    target = results / "lens.md"
    cells.write(target, text)
    figure(table, cases, results / "lens.png")
    print(f"wrote {target} and {results / 'lens.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m studies.lens", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny tasks, one seed: a minute")
    parser.add_argument("--data", help="folder that holds ds1_large.npz; default: BAYESDD_DATA")
    parser.add_argument("--results", default=cells.ROOT / "studies" / "results", help="default: studies/results")
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--only", default="", help="only tasks whose name contains this")
    parser.add_argument("--threads", type=int, default=1, help="threads a process; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time; default: %(default)s")
    parser.add_argument(
        "--limit", type=float, default=10.0, help="seconds above which one seed is enough; default: %(default)s"
    )
    parser.add_argument("--worker", action="store_true", help="measure the cells named on standard input")
    settings = vars(parser.parse_args())
    if settings.pop("worker"):
        work(Path(settings["results"]) / "lens", data=settings["data"], threads=settings["threads"])
    else:
        sys.exit(0 if bool(main(**settings)["met"].all()) else 1)
