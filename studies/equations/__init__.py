"""Eight problems that physicists know: how close is a surrogate, do its intervals hold, and what does it cost?

Question: damped pendulum, Lotka-Volterra, Poisson with a Neumann side, wave equation, Korteweg-de Vries, beam,
Allen-Cahn and heat with an unknown source, each written in at most fifteen lines (``problems.py``), are measured with
noise at 16 values of their parameter in the upper half of its range. How far is the surrogate's mean from SciPy's
solver in that half, and in the other one, that was not measured?
Claim: 90 % intervals hold 85 to 100 % of the truth in both halves, and true constants lie within three of their
posterior standard deviations.
How it could fail: searches that end in other solutions of the equation, or before the equation holds; intervals that
know nothing of what a network of this size cannot represent.
Not claimed: that coverage is exactly 90 %. A network's own error, not noise, is most of the spread where conditions fix
the solution.
Cost: a minute a problem on one thread; a problem is a process and a JSON file, kept between runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from studies.equations.cell import measure
from studies.equations.problems import PROBLEMS
from studies.shared import cells, stamps, tables
from studies.shared.commands import named

HELD = 0.85  # share of the truth in 90 % intervals that is claimed at least
SIGMAS = 3.0


def main(
    *,
    smoke: bool = False,
    results: str | Path = cells.RESULTS,
    only: str = "",
    report: bool = False,
    threads: int = 1,
    jobs: int = 1,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/equations.md``.

    Args:
        smoke: Two problems with tiny networks in this process; nothing is written.
        results: Folder of the table; the cells lie in ``equations/`` in it.
        only: Only problems whose name contains this; the table is then printed, not written.
        report: Measure nothing: the table of the cells on disk, whatever source measured them.
        threads: Threads of torch.
        jobs: Processes at a time.

    Returns:
        One row a problem; ``met`` says whether the claim holds.
    """
    folder = Path(results) / "equations"
    names = {name: _slug(name) for name in named(only, PROBLEMS, "problem")}
    if smoke:
        names = {name: names[name] for name in list(names)[:2]}
        measured = {name: measure(name, smoke=True) for name in names}
    elif report:
        measured = {
            name: cells.read(folder / f"{slug}.json") or {"error": "not measured"} for name, slug in names.items()
        }
    else:
        commands = {slug: ["-m", "studies.equations", "--cell", name] for name, slug in names.items()}
        found = cells.run(commands, folder, "studies.equations.cell", threads=threads, jobs=jobs)
        measured = {name: found[slug] for name, slug in names.items()}
    table = pd.DataFrame([_row(name, cell) for name, cell in measured.items()])
    sources = sorted({cell["stamp"]["source"] for cell in measured.values() if "stamp" in cell})
    tables.report(
        None if smoke or only else Path(results) / "equations.md",
        table,
        notes=[
            "error: relative L2 of the mean against SciPy's solver; held: share of the truth in 90 % intervals; width: "
            "of those, over the solution's root mean square. in: the half of the parameter's range that was measured "
            "(16 values, 8 noisy measurements each); out: the other half. seconds: of the processor, the fit alone.",
            "Networks of 2 x 16 (337 weights and more), four searches of at most 250 steps.",
            stamps.last_line(stamps.machine(threads), sources),
        ],
    )
    return table


def _slug(name: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def _row(name: str, cell: dict[str, Any]) -> dict[str, Any]:
    if isinstance(cell.get("error"), str):
        return {"problem": name, "failed": cell["error"], "met": "no"}
    row: dict[str, Any] = {"problem": name}
    for place in ("in", "out"):
        one = cell[place]
        row |= {f"error {place}": f"{one['error']:.2g}", f"held {place}": f"{one['coverage']:.2f}"}
        row[f"width {place}"] = f"{one['width']:.2g}"
    found = cell["constants"]
    row["constants (truth)"] = ", ".join(
        f"{key} {mean:.3g} +- {sd:.1g} ({true:g})" for key, (mean, sd, true) in found.items()
    )
    right = all(abs(mean - true) <= SIGMAS * sd for mean, sd, true in found.values())
    held = min(cell["in"]["coverage"], cell["out"]["coverage"]) >= HELD
    failed = [what for what, holds in (("held", held), ("constants", right)) if not holds]
    return row | {"seconds": f"{cell['seconds']:.0f}", "met": "no: " + ", ".join(failed) if failed else "yes"}
