"""Bayesian physics-informed networks on their standard problems: right solutions, honest spread, chains that agree?

Question: do the tasks of ``bayesdd.pinn``, sampled by constrained HMC, give what B-PINNs by plain HMC give, judged by
the function u and not by the weights?
Claim: with the paper's network (2 x 50), prior and noise, the relative L2 error of the mean is no more than that of
plain HMC on the same rows, to two Monte Carlo standard errors of both; R-hat of u and of k is at most 1.01; the
standard deviation of k is within a quarter of the paper's (its mean moves with the noise that was drawn); one step of
batched HMC is at least five times faster than one of Pyro's HMC.
How it could fail: chains that stay where they started (they start at different functions, so R-hat of u would tell);
several solutions. The nonlinear equation with both ends given has more than one, of nearly equal posterior density, and
the start decides which one a chain samples. Chains start at the solutions that are smallest in mean square; the column
"solutions" counts the different functions that the searches found.
Not claimed: that chains find the other solutions or leave them; in a trial, two that began there stayed there. Nor that
constrained HMC is always worth its steps, each of which costs three of Pyro's: "ESS ratio", effective draws of u a
second over Pyro's HMC, is large where plain chains hardly move and near one where they do.
The noisiest inverse problem needs 2,000 draws: its R-hat of u was 1.018 after 500 and 1.012 after 1,000.
Cost: a quarter of an hour a problem on one thread, 80 minutes for the noisiest. A problem is two processes and two JSON
files, kept between runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from studies.bpinn.cell import FULL, PLAIN, PLAIN_STEPS, PROBLEMS, SMOKE, Problem, measure
from studies.shared import cells, stamps, tables
from studies.shared.commands import named


def main(
    *,
    smoke: bool = False,
    results: str | Path = cells.RESULTS,
    only: str = "",
    report: bool = False,
    threads: int = 1,
    jobs: int = 1,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/bpinn.md``.

    Args:
        smoke: One problem with a tiny network in this process; nothing is written.
        results: Folder of the table; the cells lie in ``bpinn/`` in it.
        only: Only problems whose name contains this; the table is then printed, not written.
        report: Measure nothing: the table of the cells on disk, whatever source measured them.
        threads: Threads of torch.
        jobs: Processes at a time.

    Returns:
        One row a problem; ``met`` says whether the claim holds (at smoke size: that numbers are finite).
    """
    wanted = named(only, [problem.name for problem in PROBLEMS], "problem")
    chosen = [problem for problem in PROBLEMS if problem.name in wanted]
    if smoke:
        chosen = [problem for problem in chosen if problem.linear]
    names = [problem.name + method for problem in chosen for method in ("", PLAIN)]
    folder = Path(results) / "bpinn"
    if smoke:
        measured = {name: measure(name, SMOKE) for name in names}
    elif report:
        measured = {name: cells.read(folder / f"{name}.json") or {"error": "not measured"} for name in names}
    else:
        commands = {name: ["-m", "studies.bpinn", "--cell", name] for name in names}
        measured = cells.run(commands, folder, "studies.bpinn.cell", threads=threads, jobs=jobs)
    rows = [_row(problem, measured[problem.name], measured[problem.name + PLAIN], smoke) for problem in chosen]
    table = pd.DataFrame(rows).set_index("problem")
    sources = sorted({found["stamp"]["source"] for found in measured.values() if "stamp" in found})
    tables.report(
        None if smoke or only else Path(results) / "bpinn.md",
        table.reset_index(),
        floats=".4g",
        notes=[
            f"{FULL.chains} chains of so many draws of {FULL.steps} steps. error: relative L2 of the posterior mean of "
            "u on 101 points; HMC: the same by plain HMC on the same rows; HMC rerun: the same by four chains of 1,000 "
            "draws, hand-written, on other noise; R-hat u, ESS u: at the worst point; cover: share of the points whose "
            "truth lies in the 90% interval, one draw of the noise. k is 0.7.",
            "step, Pyro step: seconds of the processor for one step of one chain, Pyro's with plain HMC; HMC ESS: "
            f"effective draws of u, at its worst point, by plain HMC in {FULL.chains} chains of {FULL.plain} draws of "
            f"{PLAIN_STEPS} steps; ESS ratio: effective draws a second over Pyro's HMC; batched step: of one chain of "
            f"plain HMC, {FULL.many} at a time; faster: Pyro step over batched step.",
            stamps.last_line(stamps.machine(threads), sources),
        ],
    )
    return table


def _row(problem: Problem, ours: dict[str, Any], plain: dict[str, Any], smoke: bool) -> dict[str, Any]:
    for found in (ours, plain):
        if isinstance(found.get("error"), str):
            return {"problem": problem.name, "failed": found["error"], "met": False}
    gain = ours["ess"] / ours["sampling"] / (plain["ess"] / (plain["steps"] * plain["pyro_step"]))
    close = not problem.inside or abs(np.log(ours["k_sd"] / problem.paper_sd)) < np.log(1.25)
    agree = max(ours["rhat"], ours.get("k_rhat", 0.0)) <= 1.01 and ours["ess"] >= 400
    right = ours["error"] - plain["error"] <= 2 * np.hypot(ours["error_se"], plain["error_se"])
    faster = plain["pyro_step"] / plain["batched_step"]
    met = right and agree and close and faster >= 5
    return {
        "problem": problem.name,
        "error": ours["error"],
        "+-": ours["error_se"],
        "HMC": plain["error"],
        "HMC +-": plain["error_se"],
        "HMC rerun": problem.rerun,
        "R-hat u": ours["rhat"],
        "ESS u": ours["ess"],
        "cover": ours["cover"],
        "k": ours.get("k", float("nan")),
        "sd k": ours.get("k_sd", float("nan")),
        "paper's": problem.paper_sd,
        "R-hat k": ours.get("k_rhat", float("nan")),
        "solutions": ours["solutions"],
        "draws": ours.get("draws", FULL.draws),
        "step": ours["step"],
        "Pyro step": plain["pyro_step"],
        "HMC R-hat": plain["rhat"],
        "HMC ESS": plain["ess"],
        "ESS ratio": gain,
        "batched step": plain["batched_step"],
        "faster": faster,
        "met": bool(np.isfinite(ours["error"]) if smoke else met),
    }
