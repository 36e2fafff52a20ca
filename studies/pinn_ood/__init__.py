"""Rows that carry a surrogate's knowledge: does a plain network learn from them beyond the boundaries measured?

Question: 200 noisy measurements lie where the boundary parameter alpha is in the upper tail of its distribution; the
equation and the boundary values over the whole range of alpha are known. What does a plain network, trained from
scratch on M rows (x, alpha, u) with no equation in sight, predict in the lower tail? Which road to the rows is best at
an equal budget: the same steps, starts and final scaling of the weights?
Claim: students of distilled rows are, in the median, at least 20 times closer out of distribution than students of all
measurements.
How it could fail: rows whose inputs alone were optimised, with the surrogate's labels, do as well at less cost; the
weights of the surrogate handed over do better than any rows; rows serve only networks of the shape that they grew up
with: 2 x 16 tanh, while 2 x 50 and plain torch (Adam, tanh and silu) stand beside it.
Cost: two to four minutes a cell on one thread; a cell is a family, a seed and a size, kept between runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from studies.pinn_ood.cell import ACTIVATIONS, ALL, FULL, measure
from studies.pinn_ood.problems import FAMILIES
from studies.shared import cells, stamps, tables

SIZES, FIRST = (20, 50), ("reaction-diffusion",)
GAIN = 20.0
MOST = 201  # seeds and sizes that a report looks for
OTHERS = ("2 x 50", *(f"torch, {name}" for name in ACTIVATIONS))


def main(
    *,
    smoke: bool = False,
    results: str | Path = cells.RESULTS,
    families: tuple[str, ...] = FIRST,
    sizes: tuple[int, ...] = SIZES,
    seeds: int = 1,
    report: bool = False,
    threads: int = 1,
    jobs: int = 1,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/pinn_ood.md``.

    Args:
        smoke: A tiny network and few steps, in this process; nothing is written.
        results: Folder of the table; the cells lie in ``pinn_ood/`` in it.
        families: Names in ``studies.pinn_ood.problems.FAMILIES``.
        sizes: Numbers M of rows.
        seeds: Sets of measurements a family.
        report: Measure nothing: the table of all cells on disk, whatever families, sizes, seeds and source they are.
        threads: Threads a process.
        jobs: Processes at a time.

    Returns:
        A row for each family, size and road; ``met`` says whether the claim holds, where one is made.
    """
    if unknown := sorted(set(families) - set(FAMILIES)):
        raise ValueError(f"pinn_ood has no family {unknown[0]!r}; there are {', '.join(FAMILIES)}.")
    folder = Path(results) / "pinn_ood"
    if smoke:
        found = {(FIRST[0], 8): [measure(FIRST[0], 0, 8, smoke=True)]}
    elif report:
        found = _on_disk(folder)
    else:
        keys = [(family, seed, size) for seed in range(seeds) for family in families for size in sizes]
        commands = {f"{f}-{s}-{m}": ["-m", "studies.pinn_ood", "--cell", f, str(s), str(m)] for f, s, m in keys}
        done = cells.run(commands, folder, "studies.pinn_ood.cell", threads=threads, jobs=jobs)
        found = {(f, m): [done[f"{f}-{s}-{m}"] for s in range(seeds)] for f in families for m in sizes}
        found = {key: kept for key, some in found.items() if (kept := [one for one in some if "error" not in one])}
    rows = [row for (family, size), some in found.items() for row in _rows(family, size, some, smoke)]
    table = pd.DataFrame(rows)
    sources = sorted({one["stamp"]["source"] for some in found.values() for one in some if "stamp" in one})
    tables.report(
        None if smoke else Path(results) / "pinn_ood.md",
        table,
        notes=[
            f"error: relative L2 of students trained from scratch ({FULL['students']} of 2 x 16 tanh for each set of "
            "measurements), median and quartiles; in: alpha in the tail that was measured, out: in the other one; "
            "held: share of the truth in 90 % intervals, mean. closer: error out of all measurements without physics "
            "over this one.",
            f"2 x 50, torch: error out of {FULL['other']} networks of that shape each, tanh fitted as the students "
            f"are, and plain torch (2 x 50, {FULL['adam']} steps of Adam, no prior).",
            f"distilled and inputs optimised move rows by {FULL['steps']} steps from the same two starts; weights have "
            "the same final scaling. seconds: of the processor, for one set of rows; of the weights handed over, for "
            "the surrogate itself.",
            f"Of {len(FAMILIES)} families {len({f for f, _ in found})} are measured. sets: of measurements.",
            stamps.last_line(stamps.machine(threads), sources),
        ],
    )
    return table


def _on_disk(folder: Path) -> dict[tuple[str, int], list[dict[str, Any]]]:
    found = {}
    for family in FAMILIES:
        for size in range(1, MOST):
            some = [cells.read(folder / f"{family}-{seed}-{size}.json") for seed in range(MOST)]
            if kept := [one for one in some if one is not None]:
                found[family, size] = kept
    return found


def _rows(family: str, size: int, some: list[dict[str, Any]], smoke: bool) -> list[dict[str, Any]]:
    rows, error = [], {}
    for road in some[0]["roads"]:
        each = [one["roads"][road] for one in some]
        pooled = {place: [s for one in each for s in one.get(place, [])] for place in ("in", "out", *OTHERS)}
        row: dict[str, Any] = {"family": family, "M": size, "sets": len(some), "method": road}
        for place in ("out", "in"):
            low, middle, high = np.quantile([one["error"] for one in pooled[place]], [0.25, 0.5, 0.75])
            row[f"error {place}"] = f"{middle:.3g} ({low:.2g} - {high:.2g})"
            row[f"held {place}"] = f"{np.mean([one['held'] for one in pooled[place]]):.2f}"
        error[road] = float(np.median([one["error"] for one in pooled["out"]]))
        row["closer"] = ""
        for other in OTHERS:
            errors = [one["error"] for one in pooled[other]]
            row[other] = f"{np.median(errors):.3g}" if errors else ""
        row["seconds"] = f"{np.median([one['seconds'] for one in each]):.0f}"
        rows.append(row | {"met": ""})
    for row in rows:
        row["closer"] = f"{error[ALL] / error[row['method']]:.3g}"
    gain = error[ALL] / error["distilled"]
    rows[0]["met"] = "" if smoke else "yes" if gain >= GAIN else f"no: {gain:.1f} times"
    return rows
