"""Ten seeds of fourteen tasks: how far is the distilled posterior from the full one, truly?

Question: with no setting but ``size`` and ``seed``, how many nats lie between the two posteriors, and does the
certificate say so?
Claim: the KLs are within the table's columns "claim", at the default tolerance and at 1e-8; the certificate's interval
(two standard errors) contains the KL that is computed independently of it (exact formulas, or importance sampling in
NumPy, ``studies/shared/true_kl.py``); constant columns stay exactly constant.
How it could fail: fits that agree at the mode and not beside it (the KL between the two Laplace fits, a side column,
misses that); starting rows that happen to be bad (the worst seed is shown); a certificate that looks where the
distilled posterior is and not where the full one is.
Cost: about an hour on one thread. Each cell (task, seed) is a process and a JSON file: an interrupted run continues
where it stopped. Simulated data are drawn anew with every seed. ds1 and posteriordb are no part of the project: name
the folder that holds them by ``--data`` or BAYESDD_DATA, or their rows are left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from studies.glm_accuracy.cell import measure
from studies.glm_accuracy.table import legend, row
from studies.shared import cells, stamps, tables
from studies.shared.glm_cases import CASES, Case, chosen

CELL = "studies.glm_accuracy.cell"


def main(
    *,
    smoke: bool = False,
    data: str | Path | None = None,
    results: str | Path = cells.ROOT / "studies" / "results",
    seeds: int = 10,
    only: str = "",
    threads: int = 1,
    jobs: int = 1,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/glm_accuracy.md``.

    Args:
        smoke: Tiny versions of the tasks that need no data, one seed, in this process; nothing is written.
        data: Folder that holds ds1_large.npz and posteriordb/; default the environment's BAYESDD_DATA.
        results: Folder of the table; the cells lie in ``glm_accuracy/`` in it.
        seeds: Seeds a task.
        only: Only tasks whose name contains this; the table is then printed, not written.
        threads: Threads a process.
        jobs: Processes at a time.

    Returns:
        The table, one row a task; ``met`` says whether the claim holds; ``attrs["notes"]`` the lines below it.
    """
    data = data or os.environ.get("BAYESDD_DATA") or None
    some, notes = chosen(CASES, only, None if smoke else data)
    print("".join(f"{note}\n" for note in notes), end="", flush=True)
    if smoke:
        some = [case for case in some if case.in_smoke]
        measured = {case.name: [measure(case.name, 0, smoke=True)] for case in some}
    else:
        measured = _measured(some, data, Path(results), seeds, threads, jobs)
    table = pd.DataFrame([row(case, measured[case.name]) for case in some], columns=None if some else ["task", "met"])
    stamp = stamps.last_line(stamps.machine(threads), [stamps.source_hash(CELL)])
    table.attrs["notes"] = [*legend(), *notes, stamp]
    tables.report(None if smoke or only else Path(results) / "glm_accuracy.md", table, notes=table.attrs["notes"])
    return table


def _measured(
    cases: Sequence[Case], data: str | Path | None, results: Path, seeds: int, threads: int, jobs: int
) -> dict[str, list[dict[str, Any]]]:
    folder = [] if data is None else [str(Path(data).resolve())]
    commands = {
        f"{case.name}-{seed}": ["-m", "studies.glm_accuracy", "--cell", case.name, str(seed), *folder]
        for case in cases
        for seed in range(seeds)
    }
    found = cells.run(commands, results / "glm_accuracy", CELL, threads=threads, jobs=jobs)
    return {case.name: [found[f"{case.name}-{seed}"] for seed in range(seeds)] for case in cases}
