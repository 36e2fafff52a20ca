"""Rows that carry a physics-informed network's knowledge: does a plain network learn beyond its training boundaries?

Question: 200 noisy measurements lie where the boundary parameter alpha is in the upper tail of its distribution; the
equation and the boundary values over the whole range of alpha are known. A target of three tasks (measurements,
residual, boundary values) is distilled to M weighted rows (x, alpha, y). What does a plain network, trained from
scratch on those rows with no equation in sight, predict in the lower tail?
Claim: reaction-diffusion, median over students trained from scratch: relative L2 error out of distribution at most 0.10
with 20 rows, 0.035 with 50, 0.02 with 100; below rows labelled by the target at random or Sobol inputs; 20 times below
all measurements without the equation at M = 50; 90% intervals cover 80 to 97%.
How it could fail: boundary values do more than the distillation (the target without them stands beside it); labelled
rows at well-spread inputs do as well (random, Sobol, greedy and optimised inputs stand beside it); rows serve only the
students they grew up with (every number is of students from scratch); intervals that are as wide as the solution
(their width is shown).
Cost: about ten minutes a family and seed on one thread: each target and each (family, seed, M) is a process and a
JSON file, and an interrupted run continues where it stopped.

The equations, the network and the numbers are this project's own choice: alpha normal, cut off at three standard
deviations, tails from half a standard deviation on; two hidden layers of 16; noise 0.1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from studies.pinn_ood import figure
from studies.pinn_ood.cell import measure, target
from studies.pinn_ood.parts import FAMILIES
from studies.pinn_ood.table import LEGEND, summary
from studies.shared import cells, stamps, tables

SIZES = (10, 20, 50, 100)
FIRST = ("reaction-diffusion",)
MOST = 201  # seeds and sizes that a report looks for


def main(
    *,
    smoke: bool = False,
    results: str | Path = cells.RESULTS,
    families: tuple[str, ...] = FIRST,
    sizes: tuple[int, ...] = SIZES,
    seeds: int = 3,
    report: bool = False,
    threads: int = 1,
    jobs: int = 1,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/pinn_ood.md``.

    Args:
        smoke: A tiny network, target and distillation, one family, size and seed, in this process; nothing is written.
        results: Folder of the table and the figures; the cells lie in ``pinn_ood/`` in it.
        families: Names in ``studies.pinn_ood.parts.FAMILIES``.
        sizes: Numbers M of rows.
        seeds: Sets of measurements a family.
        report: Measure nothing: the table of all cells on disk, whatever families, sizes and seeds they are.
        threads: Threads a process.
        jobs: Processes at a time.

    Returns:
        The table, a row for each family, size and method; ``met`` says whether the claim holds, where one is made.
    """
    if unknown := sorted(set(families) - set(FAMILIES)):
        raise ValueError(f"pinn_ood has no family {unknown[0]!r}; there are {', '.join(FAMILIES)}.")
    if smoke:
        teacher = target(FIRST[0], 0, smoke=True)
        measured = {(FIRST[0], 0, 8): measure(FIRST[0], 0, 8, teacher, smoke=True)}
        table = summary({(FIRST[0], 0): teacher}, measured, smoke=True)
        print(tables.markdown(table))
        return table
    folder = Path(results) / "pinn_ood"
    if report:
        teachers = _kept({(f, s) for f in FAMILIES for s in range(MOST)}, folder)
        measured = _kept({(*key, m) for key in teachers for m in range(1, MOST)}, folder)
    else:
        pairs = {(f, s): [f, str(s)] for f in families for s in range(seeds)}
        teachers = _run(pairs, folder, threads, jobs)
        wanted = {(f, s, m): [f, str(s), str(m), str(folder / f"{f}-{s}.json")] for f, s in teachers for m in sizes}
        measured = _run(wanted, folder, threads, jobs)
    table = summary(teachers, measured)
    sets = {family: {seed for other, seed, _ in measured if other == family} for family, *_ in measured}
    said = ", ".join(f"{family} {len(found)}" for family, found in sets.items())
    by = sorted({cell["stamp"]["source"] for cell in measured.values()})
    page = Path(results) / "pinn_ood.md"
    stamp = stamps.last_line(stamps.machine(threads), by)
    tables.report(page, table, notes=[*LEGEND, f"Sets of measurements: {said}.", stamp])
    figure.draw(teachers, measured, page.with_suffix(".png"))
    return table


def _kept(keys: set[Any], folder: Path) -> dict[Any, dict[str, Any]]:
    """Cells on disk, in the order of families, seeds and sizes."""
    paths = {key: folder / f"{'-'.join(map(str, key))}.json" for key in sorted(keys)}
    return {key: json.loads(path.read_text()) for key, path in paths.items() if path.exists()}


def _run(arguments: dict[Any, list[str]], folder: Path, threads: int, jobs: int) -> dict[Any, dict[str, Any]]:
    """Cells that were measured; those that failed are said and left out."""
    names = {key: "-".join(map(str, key)) for key in arguments}
    commands = {names[key]: ["-m", "studies.pinn_ood", "--cell", *given] for key, given in arguments.items()}
    found = cells.run(commands, folder, "studies.pinn_ood.cell", threads=threads, jobs=jobs)
    return {key: found[name] for key, name in names.items() if "error" not in found[name]}
