"""Eight problems that physicists know: how close is a surrogate, do its intervals hold, and what does it cost?

Question: damped pendulum, Lotka-Volterra, Poisson with a Neumann side, wave equation, Korteweg-de Vries, beam,
Allen-Cahn and heat with an unknown source, each written in at most fifteen lines (``problems.py``), are measured with
noise at 16 values of their parameter in the upper half of its range. How far is the surrogate's mean from SciPy's
solver in that half, and in the other one, that was not measured? And how far are unknown constants and functions?
Claim: over several seeds of measurements and searches, 90 % intervals hold 85 to 100 % of the truth in both halves, and
of unknown functions; true constants lie within three of their posterior standard deviations.
Why several: one unknown moves a field everywhere at once, so that of one set of measurements intervals hold all or much
less than 90 %, and both are right: so do those of the rod's exact inverse problem.
How it could fail: searches that end in other solutions of the equation, or before the equation holds; intervals that
know nothing of what a network of this size cannot represent.
Not claimed: that coverage is exactly 90 %. A network's own error, not noise, is most of the spread where conditions fix
the solution; where constants are unknown, the second table has what the exact posterior holds of the same measurements
(``exact.py``).
Cost: a minute a problem and seed on one thread; each is a process and a JSON file, kept between runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from studies.equations.cell import EXACT, measure
from studies.equations.problems import PROBLEMS
from studies.shared import cells, stamps, tables
from studies.shared.commands import named

HELD = 0.85  # share of the truth in 90 % intervals that is claimed at least
SIGMAS = 3.0
ENDS = ("", f"-{EXACT}")  # of the names of a problem's cells, by its surrogate and exactly


def main(
    *,
    smoke: bool = False,
    results: str | Path = cells.RESULTS,
    only: str = "",
    report: bool = False,
    seeds: int = 3,
    threads: int = 1,
    jobs: int = 1,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/equations.md``.

    Args:
        smoke: Two problems with tiny networks in this process; nothing is written.
        results: Folder of the table; the cells lie in ``equations/`` in it.
        only: Only problems whose name contains this; the table is then printed, not written.
        report: Measure nothing: the table of the cells on disk, whatever source measured them.
        seeds: Sets of measurements, each with searches of its own.
        threads: Threads of torch.
        jobs: Processes at a time.

    Returns:
        One row a problem; ``met`` says whether the claim holds.
    """
    folder = Path(results) / "equations"
    names = {name: _slug(name) for name in named(only, PROBLEMS, "problem")}
    if smoke:
        names, seeds = {name: names[name] for name in list(names)[:2]}, 1
    # Constants alone can be had exactly: beside those surrogates stands what the exact posterior holds.
    alone = [name for name in names if PROBLEMS[name][3]][: 1 if smoke else None]
    wanted = {f"{slug}-{seed}": (name, seed) for seed in range(seeds) for name, slug in names.items()}
    exact = {f"{names[name]}-{seed}-{EXACT}": (name, seed, EXACT) for seed in range(seeds) for name in alone}
    if smoke:
        found = {cell: measure(*given, smoke=True) for cell, given in (wanted | exact).items()}
    elif report:
        found = {cell: cells.read(folder / f"{cell}.json") or {"error": "not measured"} for cell in wanted | exact}
    else:
        commands = {
            cell: ["-m", "studies.equations", "--cell", *map(str, given)] for cell, given in (wanted | exact).items()
        }
        found = cells.run(commands, folder, "studies.equations.cell", threads=threads, jobs=jobs)
    table = pd.DataFrame([_row(name, [found[f"{slug}-{at}"] for at in range(seeds)]) for name, slug in names.items()])
    beside = pd.DataFrame(
        [
            row
            for name in alone
            for row in _beside(name, *([found[f"{names[name]}-{at}{end}"] for at in range(seeds)] for end in ENDS))
        ]
    )
    sources = sorted({cell["stamp"]["source"] for cell in found.values() if "stamp" in cell})
    tables.report(
        None if smoke or only else Path(results) / "equations.md",
        "## Surrogates",
        table,
        *(["## Beside the exact posterior, where constants alone are unknown", beside] if len(beside) else []),
        notes=[
            "error: relative L2 of the mean against SciPy's solver; held: share of the truth in 90 % intervals; width: "
            "of those, over the solution's root mean square. in: the half of the parameter's range that was measured "
            "(16 values, 8 noisy measurements each); out: the other half. functions: the same error and share of "
            "unknown functions. seconds: of the processor, the fit alone.",
            f"Means over {seeds} seed(s), errors root mean squares; constants of seed 0, judged at each.",
            "exact: constants by least squares on SciPy's solver, with their priors and the noise known, linearised at "
            "the mode. off: largest difference of a constant from the exact mean, in exact standard deviations. A "
            "constant moves a field everywhere at once: of one set of measurements intervals hold all or far less.",
            "Networks of 2 x 16 (337 weights and more), four searches of at most 250 steps.",
            stamps.last_line(stamps.machine(threads), sources),
        ],
    )
    return table


def _slug(name: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def _row(name: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if failed := [cell["error"] for cell in found if isinstance(cell.get("error"), str)]:
        return {"problem": name, "failed": failed[0], "met": "no"}
    row: dict[str, Any] = {"problem": name}
    for place in ("in", "out"):
        row |= {f"error {place}": f"{_error(found, place):.2g}", f"held {place}": f"{_mean(found, place):.2f}"}
        row[f"width {place}"] = f"{_mean(found, place, 'width'):.2g}"
    row["constants (truth)"] = ", ".join(
        f"{key} {mean:.3g} +- {sd:.1g} ({true:g})" for key, (mean, sd, true) in found[0]["constants"].items()
    )
    functions = [f"function {key}" for key in found[0]["functions"]]
    each = [cell | {f"function {key}": one for key, one in cell["functions"].items()} for cell in found]
    row["functions"] = ", ".join(
        f"{key.split()[1]} {_error(each, key):.2g}, held {_mean(each, key):.2f}" for key in functions
    )
    constants = [one for cell in found for one in cell["constants"].values()]
    right = all(abs(mean - true) <= SIGMAS * sd for mean, sd, true in constants)
    held = min(_mean(each, place) for place in ("in", "out", *functions)) >= HELD
    failed = [what for what, holds in (("held", held), ("constants", right)) if not holds]
    row["seconds"] = f"{sum(cell['seconds'] for cell in found) / len(found):.0f}"
    return row | {"met": "no: " + ", ".join(failed) if failed else "yes"}


def _beside(name: str, found: Sequence[dict[str, Any]], exact: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A problem by its surrogates and by the exact posterior."""
    if any(isinstance(cell.get("error"), str) for cell in (*found, *exact)):
        return []
    off = max(
        abs(mean - cell["constants"][key][0]) / cell["constants"][key][1]
        for fit, cell in zip(found, exact, strict=True)
        for key, (mean, _, _) in fit["constants"].items()
    )
    rows: list[dict[str, Any]] = []
    for by, some in (("surrogate", found), ("exact", exact)):
        row: dict[str, Any] = {"problem": name, "by": by}
        for place in ("in", "out"):
            row |= {f"error {place}": f"{_error(some, place):.2g}", f"held {place}": f"{_mean(some, place):.2f}"}
            row[f"width {place}"] = f"{_mean(some, place, 'width'):.2g}"
        rows.append(row | {"off": f"{off:.2f}" if by == "surrogate" else ""})
    return rows


def _mean(found: Sequence[dict[str, Any]], place: str, what: str = "coverage") -> float:
    return float(np.mean([cell[place][what] for cell in found]))


def _error(found: Sequence[dict[str, Any]], place: str) -> float:
    return float(np.sqrt(np.mean([cell[place]["error"] ** 2 for cell in found])))
