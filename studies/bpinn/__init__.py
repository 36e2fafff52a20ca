"""Bayesian physics-informed networks on their standard problems: right solutions, honest spread, chains that agree?

Question: do the tasks of ``bayesdd.pinn._target``, sampled by constrained HMC, give what B-PINNs by plain HMC give, in function
space and not just in one chain's view?
Claim: with the paper's network (2 x 50), prior and noise the relative L2 error of the mean is no more than that of
plain HMC on the same rows, to two Monte Carlo standard errors of both; R-hat of u and of k at most 1.01; the sd of k
within a quarter of the paper's (its mean moves with the noise that was drawn); a step of a chain of batched HMC at
least five times faster than one of Pyro's HMC. (Column "HMC rerun": four chains of 1,000 draws, hand-written, on other
noise.)
How it could fail: chains that stay where they started (R-hat in function space tells; chains start at different
functions that fit, if not the larger solutions of the next sentence); several solutions. The nonlinear equation with
both ends given has more than one, of nearly equal posterior density, and which one a chain samples is decided by its
start: chains start at those that fit the rows and are smallest in mean square, and the column "solutions" counts how
many different functions the searches met.
What is not claimed: that chains find the other solutions, or leave them: in a trial two that began there stayed.
Nor that constrained HMC is always worth its steps, each of which costs three of Pyro's: column "ESS ratio", effective
draws of u a second over Pyro's HMC, is large where plain chains hardly move and near one where they do.
Chains of the noisiest inverse problem need 2,000 draws for it: R-hat of u was 1.018 after 500, 1.012 after 1,000.
Cost: a quarter of an hour a problem on one thread, of the noisiest 80 minutes; a problem is two processes and two JSON
files, kept between runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from studies.bpinn import cell as parts
from studies.bpinn.cell import Problem, Size
from studies.shared import cells

PROBLEMS = (
    Problem("linear, noise 0.01", True, 16, 0.01, rerun=0.058),
    Problem("nonlinear, noise 0.01", False, 32, 0.01, rerun=0.0346),
    Problem("inverse k, noise 0.01", False, 32, 0.01, inside=8, rerun=0.0119, paper_sd=5.75e-3),
    Problem("inverse k, noise 0.1", False, 32, 0.1, inside=8, rerun=0.126, paper_sd=5.63e-2, longer=4),
)
FULL = Size(width=50, searches=12, climb=50, chains=4, warmup=60, draws=500, steps=50, plain=300, many=32)
SMOKE = Size(width=4, searches=3, climb=20, chains=3, warmup=4, draws=8, steps=4, plain=8, many=4)
PLAIN = " by plain HMC"  # behind a problem's name: its other cell


def main(
    *,
    smoke: bool = False,
    results: str | Path = cells.ROOT / "studies" / "results",
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
    chosen = [problem for problem in PROBLEMS if only in problem.name]
    if smoke:
        chosen = [problem for problem in chosen if problem.linear]
    names = [problem.name + method for problem in chosen for method in ("", PLAIN)]
    folder = Path(results) / "bpinn"
    if smoke:
        measured = {name: cell(name, SMOKE) for name in names}
    elif report:
        measured = {name: cells.read(folder / f"{name}.json") or {"error": "not measured"} for name in names}
    else:
        commands = {name: ["-m", "studies.bpinn", "--cell", name] for name in names}
        measured = cells.run(commands, folder, "bpinn", threads=threads, jobs=jobs)
    rows = [_row(problem, measured[problem.name], measured[problem.name + PLAIN], smoke) for problem in chosen]
    table = pd.DataFrame(rows).set_index("problem")
    sources = sorted({found["stamp"]["source"] for found in measured.values() if "stamp" in found})
    text = (
        f"```\n{table.to_string(float_format=lambda value: f'{value:.4g}')}\n```\n\n"
        f"{FULL.chains} chains of so many draws of {FULL.steps} steps. error: relative L2 of the posterior mean "
        "of u on 101 points; HMC rerun: the same by plain HMC; R-hat u, ESS u: at the worst point; cover: share of the "
        "points whose truth lies in the 90% interval, one draw of the noise; step, Pyro step: seconds of the processor "
        "for one step of one chain, Pyro's with plain HMC; HMC ESS: effective draws of u, at its worst point, by plain "
        f"HMC in {FULL.chains} chains of {FULL.plain} draws of {parts.PLAIN_STEPS} steps; ESS ratio: effective "
        f"draws a second over Pyro's HMC; batched step: of one chain of plain HMC, {FULL.many} at a time; faster: Pyro "
        "step over batched step. k is 0.7.\n\n"
        f"{cells.machine(threads)}; source {', '.join(sources)}\n"
    )
    print(text)
    if not smoke and not only:
        cells.write(Path(results) / "bpinn.md", text)
    return table


def cell(name: str, size: Size = FULL) -> dict[str, Any]:
    """Measures one cell: a problem, or a problem by plain HMC."""
    problem = next(problem for problem in PROBLEMS if problem.name == name.removesuffix(PLAIN))
    return (parts.plain if name.endswith(PLAIN) else parts.sampled)(problem, size)


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m studies.bpinn", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="one tiny problem: seconds")
    parser.add_argument("--results", default=cells.ROOT / "studies" / "results", help="default: studies/results")
    parser.add_argument("--only", default="", help="only problems whose name contains this")
    parser.add_argument("--report", action="store_true", help="measure nothing: the table of the cells on disk")
    parser.add_argument("--threads", type=int, default=1, help="threads a process; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time; default: %(default)s")
    parser.add_argument("--cell", help="measure one cell, print its JSON")
    arguments = vars(parser.parse_args())
    asked = arguments.pop("cell")
    if asked is None:
        sys.exit(0 if bool(main(**arguments)["met"].all()) else 1)
    print(json.dumps(cell(asked)))
