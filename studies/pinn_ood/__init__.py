"""Rows that carry a surrogate's knowledge: does a plain network learn from them beyond the boundaries measured?

Question: 200 noisy measurements lie where the boundary parameter alpha is in the upper tail of its distribution; the
equation and the boundary values over the whole range of alpha are known. What does a plain network, trained from
scratch on M rows (x, alpha, u) with no equation in sight, predict in the lower tail? Which road to the rows is best at
an equal budget: the same steps, starts and final scaling of the weights?
Claim: from 50 rows on students of distilled rows are, in the median, at least 50 times closer out of distribution than
students of as many measurements, in every family. (Of 10 and 20 rows nothing is claimed: they are too few.)
How it could fail: rows whose inputs alone were optimised, with the surrogate's labels, do as well at less cost; the
weights of the surrogate handed over do better than any rows; rows serve only networks of the shape that they grew up
with: 2 x 16 tanh, while 2 x 50 and plain torch (Adam, tanh and silu) stand beside it.
Cost: one to four minutes a cell on one thread, kept between runs, two hours in all; a cell is a family, a seed and a
size, or what needs no rows.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayesdd import Refusal
from studies.pinn_ood.cell import ACTIVATIONS, ALL, FULL, MEASURED, NO_PHYSICS, measure, without_rows
from studies.pinn_ood.problems import FAMILIES
from studies.shared import cells, stamps, tables

FIRST, SIZES, ENOUGH = "reaction-diffusion", (10, 20, 50, 100), 50  # the one family of all sizes; the others have one
GAIN = 50.0
MOST = 101  # seeds and sizes that a report looks for
Cell = dict[str, Any]
OTHERS = ("2 x 50", *(f"torch, {name}" for name in ACTIVATIONS))


def main(
    *,
    smoke: bool = False,
    results: str | Path = cells.RESULTS,
    families: tuple[str, ...] = tuple(FAMILIES),
    sizes: tuple[int, ...] = SIZES,
    seeds: int = 3,
    report: bool = False,
    threads: int = 1,
    jobs: int = 1,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/pinn_ood.md``.

    Args:
        smoke: A tiny network and few steps, in this process; nothing is written.
        results: Folder of the table; the cells lie in ``pinn_ood/`` in it.
        families: Names in ``studies.pinn_ood.problems.FAMILIES``.
        sizes: Numbers M of rows of reaction-diffusion; of other families 50 of them.
        seeds: Sets of measurements a family.
        report: Measure nothing: the table of all cells on disk, whatever families, sizes, seeds and source they are.
        threads: Threads a process.
        jobs: Processes at a time.

    Returns:
        A row for each family, size and road; ``met`` says whether the claim holds, where one is made.
    """
    if unknown := sorted(set(families) - set(FAMILIES)):
        raise Refusal(f"pinn_ood has no family {unknown[0]!r}; there are {', '.join(FAMILIES)}.")
    folder = Path(results) / "pinn_ood"
    if smoke:
        found = {FIRST: {(0, 0): without_rows(FIRST, 0, smoke=True), (0, 8): measure(FIRST, 0, 8, smoke=True)}}
    elif report:
        found = _on_disk(folder)
    else:
        wanted = {f: (0, *(sizes if f == FIRST else (ENOUGH,))) for f in families}
        keys = [(f, seed, size) for seed in range(seeds) for f in families for size in wanted[f]]
        commands = {_slug(*key): ["-m", "studies.pinn_ood", *_arguments(*key)] for key in keys}
        done = cells.run(commands, folder, "studies.pinn_ood.cell", threads=threads, jobs=jobs)
        found = {
            f: {(s, m): one for g, s, m in keys if g == f and "error" not in (one := done[_slug(f, s, m)])}
            for f in families
        }
    table = pd.DataFrame([row for family, some in found.items() for row in _rows(family, some, smoke)])
    if not smoke:
        claims = table[table["met"].ne("")]
        table.attrs["claims"] = claims.assign(met=claims["met"].eq("yes"))
    sources = sorted({one["stamp"]["source"] for some in found.values() for one in some.values() if "stamp" in one})
    tables.report(
        None if smoke else Path(results) / "pinn_ood.md",
        table,
        notes=[
            f"error: relative L2 of students trained from scratch ({FULL['students']} of 2 x 16 tanh for each set of "
            "measurements), median and quartiles; in: alpha in the tail that was measured, out: in the other one; "
            "held: share of the truth in 90 % intervals, mean. closer: error out of all measurements without physics "
            "over this one; than as many: of as many measurements as there are rows.",
            f"2 x 50, torch: error out of {FULL['other']} networks of that shape each, tanh fitted as the students "
            f"are, and plain torch (2 x 50, {FULL['adam']} steps of Adam, no prior).",
            f"distilled and inputs optimised move rows by {FULL['steps']} steps from the same two starts; weights have "
            "the same final scaling. seconds: of the processor, for one set of rows; of the weights handed over, for "
            "the surrogate itself.",
            f"Of {len(FAMILIES)} families {len(found)} are measured. sets: of {MEASURED} measurements.",
            stamps.last_line(stamps.machine(threads), sources),
        ],
    )
    return table


def _slug(family: str, seed: int, size: int) -> str:
    return f"{family}-{seed}-{size}" if size else f"{family}-{seed}"


def _arguments(family: str, seed: int, size: int) -> list[str]:
    return ["--cell", family, str(seed), str(size)] if size else ["--base", family, str(seed)]


def _on_disk(folder: Path) -> dict[str, dict[tuple[int, int], Cell]]:
    found: dict[str, dict[tuple[int, int], Cell]] = {}
    for family, seed, size in itertools.product(FAMILIES, range(MOST), range(MOST)):
        if (one := cells.read(folder / f"{_slug(family, seed, size)}.json")) is not None:
            found.setdefault(family, {})[seed, size] = one
    return {family: some for family, some in found.items() if (0, 0) in some}


def _rows(family: str, some: dict[tuple[int, int], Cell], smoke: bool) -> list[dict[str, Any]]:
    """A row for each road: those without rows first, then by size."""
    rows, plain = [], _median_error([one["roads"][ALL] for (_, size), one in some.items() if not size])
    for size in sorted({size for _, size in some}):
        mine = [one["roads"] for (_, other), one in some.items() if other == size]
        as_many = _median_error([one[NO_PHYSICS] for one in mine]) if size else math.nan
        for road in mine[0]:
            each = [one[road] for one in mine]
            row: dict[str, Any] = {"family": family, "M": size or "", "sets": len(each), "method": road}
            for place in ("out", "in"):
                errors, held = ([score[what] for one in each for score in one[place]] for what in ("error", "held"))
                low, middle, high = np.quantile(errors, [0.25, 0.5, 0.75])
                row[f"error {place}"] = f"{middle:.3g} ({low:.2g} - {high:.2g})"
                row[f"held {place}"] = f"{np.mean(held):.2f}"
            row["closer"] = f"{plain / _median_error(each):.3g}"
            gain = as_many / _median_error(each)
            row["than as many"] = f"{gain:.3g}" if size and road != NO_PHYSICS else ""
            for other in OTHERS:
                row[other] = f"{_median_error(each, other):.3g}" if other in each[0] else ""
            row["seconds"] = f"{np.median([one['seconds'] for one in each]):.0f}"
            if not smoke:
                claimed = road == "distilled" and size >= ENOUGH
                row["met"] = "" if not claimed else "yes" if gain >= GAIN else f"no: {gain:.1f} times"
            rows.append(row)
    return rows


def _median_error(each: list[Cell], place: str = "out") -> float:
    return float(np.median([score["error"] for one in each for score in one[place]]))
