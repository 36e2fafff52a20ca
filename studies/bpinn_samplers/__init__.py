"""Effective draws a second of samplers of Bayesian physics-informed networks: bayesdd, BlackJAX and Pyro.

Question: on the four problems of ``studies.bpinn``, from the same starts, how many effective draws of the function u
does each sampler make a second of the processor, and whose chains agree?
Claim: constrained HMC reaches R-hat of u of at most 1.01 on every problem, and makes more effective draws of u a second
at its worst point than every other method that reaches it.
How it could fail: BlackJAX compiles the whole chain, so that a leapfrog step of a small network costs it a hundredth of
what it costs torch: where plain chains move at all, it wins. Whether they do depends on the network: of narrow ones the
posterior is stiffer. Chains that hardly move have effective sample sizes of about their number, and "a second" then
says nothing: R-hat stands beside it, and how far the mean of u is from that of the method with most effective draws.
With noise ten times larger the first two problems have several solutions each, which chains do not leave in minutes.
Not compared: wall seconds on several cores, GPUs, and other lengths of a trajectory than plain HMC's 50 steps.
Cost: three to six hours: four problems, four methods, each until its chains agree or ``--seconds`` of the processor are
spent. Constrained HMC adapts for one to two minutes and needs a thousand draws of four chains, one or two seconds each.
A cell is a process and a JSON file, kept between runs. BlackJAX needs the extra ``bench``; without it its rows are left
out.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from studies.bpinn.cell import FULL as PAPER
from studies.bpinn.cell import PROBLEMS
from studies.bpinn_samplers.cell import BY, METHODS, RIVAL, STEP, lacking, measure
from studies.bpinn_samplers.chains import AGREED
from studies.shared import cells, stamps, tables
from studies.shared.commands import named

OURS = "constrained HMC"
FOR = ", "  # between a cell's name and its seconds in the name of its file
Cells = dict[str, dict[str, Any]]


def main(
    *,
    smoke: bool = False,
    results: str | Path = cells.RESULTS,
    only: str = "",
    seconds: float = 1800.0,
    report: bool = False,
    threads: int = 1,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the tables and writes them to ``results/bpinn_samplers.md``.

    Args:
        smoke: One problem with a tiny network in this process; nothing is written.
        results: Folder of the tables; the cells lie in ``bpinn_samplers/`` in it.
        only: Only cells whose name contains this; the tables are then printed, not written.
        seconds: Of the processor for adaptation and sampling, where the chains of a problem and method do not agree
            before.
        report: Measure nothing: the tables of the cells on disk, of each problem and method that of most seconds,
            whatever source measured them.
        threads: Threads of a process; more than one are for nobody's good at these sizes.

    Returns:
        One row a problem and method; ``met``, in the rows of constrained HMC, says whether the claim holds.
    """
    methods = [name for name in METHODS if not (lacking() and name.startswith(RIVAL))]
    problems = [problem.name for problem in PROBLEMS[: 1 if smoke else None]]
    every = [f"{problem}{BY}{what}" for problem in problems for what in (*methods, STEP)]
    chosen = named(only, every, "cell")
    folder = Path(results) / "bpinn_samplers"
    if smoke:
        found = {name: measure(name, smoke=True) for name in chosen}
    elif report:
        found = {name: cell for name in chosen if (cell := _longest(folder, name)) is not None}
    else:
        # The seconds are part of a cell's name: others are other cells.
        names = {f"{name}{FOR}{seconds:g} s": name for name in chosen}
        commands = {
            name: ["-m", "studies.bpinn_samplers", "--cell", cell, str(seconds)] for name, cell in names.items()
        }
        measured = cells.run(commands, folder, "studies.bpinn_samplers.cell", threads=threads, jobs=1)
        found = {names[name]: cell | {"most": seconds} for name, cell in measured.items()}
    drawn = {name: cell for name, cell in found.items() if not name.endswith(STEP)}
    table = pd.DataFrame([_row(name, drawn, smoke) for name in drawn])
    steps = pd.DataFrame([_step(name, cell) for name, cell in found.items() if name.endswith(STEP)])
    left = ["Left out: BlackJAX is not installed (pip install 'bayesdd[bench]')."] if lacking() else []
    if missing := len(chosen) - len(found):
        left.append(
            f"{missing} of {len(chosen)} cells are not measured; `bpinn.md` has constrained HMC and Pyro's HMC."
        )
    versions = "" if lacking() else ", " + ", ".join(f"{name} {version(name)}" for name in ("jax", "blackjax"))
    sources = sorted({cell["stamp"]["source"] for cell in found.values() if "stamp" in cell})
    tables.report(
        None if smoke or only else Path(results) / "bpinn_samplers.md",
        table,
        *(["One leapfrog step of plain HMC of one chain, in ms:", steps] if len(steps) else []),
        floats=".4g",
        notes=[*_notes(), *left, stamps.last_line(stamps.machine(threads) + versions, sources)],
    )
    return table


def _longest(folder: Path, name: str) -> dict[str, Any] | None:
    """Of the cells of a problem and method on disk the one of most seconds, and those."""
    there = {
        float(path.stem.removeprefix(name + FOR).removesuffix(" s")): path
        for path in folder.glob(f"{name}{FOR}* s.json")
    }
    cell = cells.read(there[max(there)]) if there else None
    return None if cell is None else cell | {"most": max(there)}


def _row(name: str, drawn: Cells, smoke: bool) -> dict[str, Any]:
    """A problem and method as they are printed."""
    problem, _, method = name.partition(BY)
    cell = drawn[name]
    row: dict[str, Any] = {"problem": problem, "method": method}
    if isinstance(cell.get("error"), str):
        return row | {"R-hat <= 1.01": cell["error"], "met": False if method == OURS else None}
    beside = {other: one for other, one in drawn.items() if other.startswith(problem + BY) and "ess" in one}
    best = max(beside.values(), key=lambda one: one["ess"])
    reached = cell["reached"]
    met = reached is not None and all(
        name == other or _rate(cell) > _rate(one) for other, one in beside.items() if one["reached"] is not None
    )
    return row | {
        "at most": cell.get("most"),
        "draws": cell["draws"],
        "compilation": cell["compilation"],
        "adaptation": cell["adaptation"],
        "sampling": cell["sampling"],
        "step, ms": 1e3 * cell["sampling"] / cell["steps"],
        "R-hat u": cell["rhat"],
        "ESS u": cell["ess"],
        "ESS/s, worst": _rate(cell),
        "ESS/s, median": cell["median_ess"] / cell["sampling"],
        "R-hat <= 1.01": "no" if reached is None else f"after {reached:.0f} s",
        "error": cell["error"],
        "apart": None if cell is best else _apart(cell, best),
        "R-hat k": cell.get("k_rhat"),
        "met": None if method != OURS else bool(smoke or met),
    }


def _rate(cell: dict[str, Any]) -> float:
    return float(cell["ess"] / cell["sampling"])


def _apart(cell: dict[str, Any], best: dict[str, Any]) -> float:
    """Root mean square over the points of the difference of two means of u, in its Monte Carlo standard errors."""
    with np.errstate(invalid="ignore", divide="ignore"):  # chains that stand still have no error
        off = np.subtract(cell["mean"], best["mean"]) / np.hypot(cell["se"], best["se"])
    return float(np.sqrt(np.mean(off**2)))


def _step(name: str, cell: dict[str, Any]) -> dict[str, Any]:
    return {
        "problem": name.partition(BY)[0],
        **{key: one for key, one in cell.items() if "chains" in key or key == "error"},
    }


def _notes() -> list[str]:
    return [
        f"Network 2 x {PAPER.width} tanh, as in the paper; four chains from the ends of the searches of "
        "`studies.bpinn`, the same for every method. They end where R-hat of u has been at most "
        f"{AGREED} for the last third of the seconds, or after so many seconds (at most) of the processor for "
        "adaptation and sampling of all four. Plain HMC: 50 leapfrog steps. Step: of one chain. ESS and R-hat (split, "
        "by ranks): of u at 101 points, worst or median; a second: of sampling.",
        f"R-hat <= {AGREED}: seconds, adaptation included, from which on R-hat of u was so at every look (one for "
        "every 8 % more draws); no: it was not so at the last. apart: root mean square difference of the mean of u "
        "from that of the problem's method with most effective draws, in standard errors of both; about one where both "
        "are right. error: relative L2 of the mean of u.",
        "met: constrained HMC reaches it, and makes more effective draws a second at the worst point than every method "
        "that reaches it too.",
    ]
