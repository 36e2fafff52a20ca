"""Bayesian physics-informed networks on their standard problems: right solutions, honest spread, chains that agree?

Question: do the tasks of ``models.pinn``, sampled by constrained HMC, give what B-PINNs by plain HMC give, in function
space and not just in one chain's view?
Claim: with the paper's network (2 x 50), prior and noise the relative L2 error of the mean is no more than that of
plain HMC (column "HMC rerun": four chains of 1,000 draws, hand-written, same definitions, other noise); R-hat of u and
of k at most 1.01; the sd of k within a quarter of the paper's (its mean moves with the noise that was drawn); at least
five times as many effective draws of u a second as Pyro's HMC.
How it could fail: chains that stay where they started (R-hat in function space tells; chains start at different
functions that fit, if not the larger solutions of the next sentence); several solutions. The nonlinear equation with
both ends given has more than one, of nearly equal posterior density, and which one a chain samples is decided by its
start: chains start at those that fit the rows and are smallest in mean square, and the column "solutions" counts how
many different functions the searches met.
Cost: COST
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from studies import _bpinn_cell, _cells
from studies._bpinn_cell import Problem, Size

PROBLEMS = (
    Problem("linear, noise 0.01", True, 16, 0.01, rerun=0.058),
    Problem("nonlinear, noise 0.01", False, 32, 0.01, rerun=0.0346),
    Problem("inverse k, noise 0.01", False, 32, 0.01, inside=8, rerun=0.0119, paper_sd=5.75e-3),
    Problem("inverse k, noise 0.1", False, 32, 0.1, inside=8, rerun=0.126, paper_sd=5.63e-2),
)
SHARDS = 4  # processes of a problem, two chains each
FULL = Size(width=50, searches=16, climb=60, chains=8, warmup=60, draws=400, steps=50, plain=100)
SMOKE = Size(width=4, searches=3, climb=20, chains=3, warmup=4, draws=8, steps=4, plain=8)


def main(
    *,
    smoke: bool = False,
    results: str | Path = _cells.ROOT / "studies" / "results",
    only: str = "",
    threads: int = 1,
    jobs: int = 1,
    draws: int = FULL.draws,
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/bpinn.md``.

    Args:
        smoke: One problem with a tiny network in this process; nothing is written.
        results: Folder of the table; the cells lie in ``bpinn/`` in it.
        only: Only problems whose name contains this; the table is then printed, not written.
        threads: Threads of torch.
        jobs: Processes at a time.
        draws: Draws a chain.

    Returns:
        One row a problem; ``met`` says whether the claim holds (at smoke size: that numbers are finite).
    """
    chosen = [problem for problem in PROBLEMS if only in problem.name]
    if smoke:
        chosen = [problem for problem in chosen if problem.linear]
        measured = {name: cell(name, SMOKE) for problem in chosen for name in _names(problem, SMOKE.draws, 1)}
    else:
        names = [name for problem in chosen for name in _names(problem, draws)]
        # The longest first: problems of 40 rows.
        commands = {name: ["-m", "studies.bpinn", "--cell", name] for name in reversed(names)}
        measured = _cells.run(commands, Path(results) / "bpinn", "bpinn", threads=threads, jobs=jobs)
    by_problem = {p: [found for name, found in measured.items() if name.startswith(f"{p.name}; ")] for p in chosen}
    rows = [
        _row(problem, sorted(cells, key=lambda c: "pyro_step" in c), smoke) for problem, cells in by_problem.items()
    ]
    table = pd.DataFrame(rows).set_index("problem")
    text = (
        f"```\n{table.to_string(float_format=lambda value: f'{value:.4g}')}\n```\n\n"
        f"8 chains of {draws} draws. error: relative L2 of the posterior mean of u on 101 points; HMC rerun: the same by "
        "plain HMC; R-hat and ESS: the worst point; cover: share of the points whose truth lies in the 90% interval, one "
        "draw of the noise; step: seconds of one step of one chain, and of Pyro's HMC; HMC ESS: effective draws of plain "
        f"HMC in 8 chains of {FULL.plain} draws of {_bpinn_cell.PLAIN_STEPS} steps; faster: effective draws of u at its "
        "worst point a second of one thread, over those of Pyro's HMC. k is 0.7.\n\n"
        f"{_cells.machine(threads)}, {jobs} processes at a time; source {_cells.source_hash('bpinn')}\n"
    )
    print(text)
    if not smoke and not only:
        target = Path(results) / "bpinn.md"
        target.with_suffix(".part").write_text(text)
        os.replace(target.with_suffix(".part"), target)
    return table


def _names(problem: Problem, draws: int, shards: int = SHARDS) -> list[str]:
    """Names of a problem's cells, plain HMC last."""
    parts = [f"{shard} of {shards}" for shard in range(shards)]
    return [f"{problem.name}; {draws}; {part}" for part in (*parts, "plain")]


def cell(name: str, size: Size = FULL) -> dict[str, Any]:
    """Measures one cell: ``problem; draws a chain; shard of shards``, or ``plain`` for the last."""
    about, draws, which = name.split("; ")
    problem = next(problem for problem in PROBLEMS if problem.name == about)
    size = replace(size, draws=int(draws))
    if which == "plain":
        return _bpinn_cell.plain(problem, size)
    return _bpinn_cell.chains(problem, size, *map(int, which.split(" of ")))


def _row(problem: Problem, cells: list[dict[str, Any]], smoke: bool) -> dict[str, Any]:
    import torch

    from bayesdd.functions import coverage
    from bayesdd.posterior import function_diagnostics

    for found in cells:
        if "error" in found:
            return {"problem": problem.name, "failed": found["error"], "met": False}
    *shards, plain = cells
    u = torch.tensor([chain for shard in shards for chain in shard["u"]], dtype=torch.float64)
    k = torch.tensor([chain for shard in shards for chain in shard["k"]], dtype=torch.float64)
    truth = _bpinn_cell.truth(problem)
    seen, share = function_diagnostics(u), coverage(u.flatten(0, 1), truth)[0]
    seen_k = function_diagnostics(k) if problem.inside else None
    sampling, steps = (sum(shard[name] for shard in shards) for name in ("sampling", "steps"))
    rate, plain_rate = float(seen.ess.min()) / sampling, plain["ess"] / (plain["steps"] * plain["pyro_step"])
    row = {
        "problem": problem.name,
        "error": float((u.mean((0, 1)) - truth).norm() / truth.norm()),
        "HMC rerun": problem.rerun,
        "R-hat u": float(seen.rhat.max()),
        "ESS u": float(seen.ess.min()),
        "cover": share,
        "k": float(k.mean()) if seen_k else float("nan"),
        "sd k": float(k.std()) if seen_k else float("nan"),
        "paper's": problem.paper_sd,
        "R-hat k": float(seen_k.rhat[0]) if seen_k else float("nan"),
        "solutions": shards[0]["solutions"],
        "accepted": float(np.mean([shard["accepted"] for shard in shards])),
        "step": sampling / steps,
        "Pyro step": plain["pyro_step"],
        "HMC ESS": plain["ess"],
        "faster": rate / plain_rate,
    }
    close = not seen_k or abs(np.log(row["sd k"] / problem.paper_sd)) < np.log(1.25)
    agree = max(row["R-hat u"], row["R-hat k"] if seen_k else 0.0) <= 1.01 and row["ESS u"] >= 400
    met = row["error"] <= problem.rerun and agree and close and row["faster"] >= 5
    return {**row, "met": bool(np.isfinite(row["error"]) if smoke else met)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m studies.bpinn", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="one tiny problem: seconds")
    parser.add_argument("--results", default=_cells.ROOT / "studies" / "results", help="default: studies/results")
    parser.add_argument("--only", default="", help="only problems whose name contains this")
    parser.add_argument("--threads", type=int, default=1, help="threads a process; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time; default: %(default)s")
    parser.add_argument("--draws", type=int, default=FULL.draws, help="draws a chain; default: %(default)s")
    parser.add_argument("--cell", help="measure one cell, print its JSON")
    arguments = vars(parser.parse_args())
    asked = arguments.pop("cell")
    if asked is None:
        sys.exit(0 if bool(main(**arguments)["met"].all()) else 1)
    print(json.dumps(cell(asked)))
