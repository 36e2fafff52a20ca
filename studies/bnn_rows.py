"""A hundred rows for the predictions of a Bayesian network on a thousand.

Question: a network regression of four inputs on 1,000 simulated rows (``models.bnn``, noise inferred) is
distilled to 100 rows by function-space matching. How far are the predictions of a network fitted to those rows from the
predictions of the posterior given all rows?
Claim: the predictive mean is off by at most 0.3 predictive standard deviations, root mean square over the inputs'
distribution.
How it could fail: networks trained from scratch end in other modes than the target; the spread is right on average and
wrong from place to place; rows that are not distilled do as well. Beside the distilled rows stand 100 random rows
weighted N / M, 100 inputs labelled with the posterior mean (three weights), and a network on all rows, linearised at
one mode.
Cost: five minutes a seed on one thread. The posterior given all rows is that of eight HMC chains, each started at a
mode of its own; their median R-hat over the inputs is shown, because they do not agree completely.
"""

from __future__ import annotations

import functools
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bayesdd import CertificateWarning, distill, kinds
from bayesdd.data.columns import Columns
from bayesdd.density.density import Density
from bayesdd.inference import hmc
from bayesdd.inference.mode import scattered
from bayesdd.inference.network_modes import climb
from bayesdd.networks import bnn, function_space, students
from bayesdd.networks.mlp import Network
from bayesdd.networks.purpose import latents
from bayesdd.networks.regression import Regression
from bayesdd.posterior.arviz import function_diagnostics
from models.bnn import INPUTS, NOISE
from models.bnn import task as simulated
from studies.shared import commands, stamps, tables
from studies.shared.cells import RESULTS

CLAIM = 0.3  # predictive standard deviations
CHAINS = 8


def main(*, smoke: bool = False, results: str | Path = RESULTS, seeds: int = 1, size: int = 100) -> pd.DataFrame:
    """Measures, prints the table and writes it to ``results/bnn_rows.md``.

    Args:
        smoke: A tiny network and few rows; nothing is written and no claim made.
        results: Folder of the table.
        seeds: Sets of simulated rows.
        size: Number M of distilled rows.

    Returns:
        The table, a row for each seed and set of training rows.
    """
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        rows += _measure(seed, 8 if smoke else size, smoke=smoke)
    table = pd.DataFrame(rows)
    best = table[table["rows"].str.startswith("distilled")]
    met = "met" if (best["error (sds)"] <= CLAIM).all() else "not met"
    source = stamps.source_hash("studies.bnn_rows")
    tables.report(
        None if smoke else Path(results) / "bnn_rows.md",
        table,
        notes=[
            f"Claim: at most {CLAIM} for the distilled rows{'' if smoke else f': {met}'}.",
            stamps.last_line(stamps.machine(1), [source]),
        ],
    )
    return table


def _measure(seed: int, size: int, *, smoke: bool) -> list[dict[str, Any]]:
    hidden, count, steps, points = ((4,), 60, 10, 48) if smoke else ((16, 16), 1000, 40, 512)
    task = simulated(count, hidden, seed)
    network = Network((0.0,) * INPUTS, (1.0,) * INPUTS, hidden)
    student = bnn.student(task.data, network=network, noise=NOISE, kinds={"x": kinds.interval(-1.0, 1.0)})
    regression, density = Regression(student, "the study"), Density([(task, task.data, None)])
    generator = torch.Generator().manual_seed(1000 + seed)
    # Rows are distilled for some inputs and judged at others, from the same distribution.
    inputs, fresh = (
        {"x": 2 * torch.rand(points, INPUTS, generator=generator, dtype=torch.float64) - 1} for _ in range(2)
    )
    modes = climb(density, scattered(density, CHAINS, seed), steps=steps).points
    drawn = hmc(
        density,
        draws=5 if smoke else 80,
        chains=CHAINS,
        seed=seed,
        warmup=10 if smoke else 150,
        start=modes,
        whiten=False,
        max_steps=8 if smoke else 64,
    )
    draws = task.constrain(drawn.flat)
    with torch.no_grad():
        at_fresh = regression.mean(latents(student, draws), fresh).unflatten(0, drawn.values.shape[:2])
    rhat = float(np.median(function_diagnostics(at_fresh).rhat))
    begin = time.process_time()
    quick: dict[str, Any] = {"steps": 10} if smoke else {}
    objective = functools.partial(function_space, purpose=inputs, draws=draws, **quick)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CertificateWarning)  # the verdict is in the table
        found = distill(student, size, objective=objective, seed=seed, progress=False)
    seconds = time.process_time() - begin
    picked = torch.randperm(count, generator=generator)[:size]
    few = {name: column[picked] for name, column in task.data.items()}
    flat = at_fresh.flatten(0, 1)
    judge = functools.partial(_judge, regression, fresh, flat.mean(0), flat.std(0), seed, 20 if smoke else 400)
    with torch.no_grad():
        label = regression.mean(latents(student, draws), {"x": inputs["x"][:size]}).mean(0)
    labelled = {"x": inputs["x"][:size], "y": label}
    sharp = {f"labelled, {size}, weighted {weight}": (labelled, float(weight)) for weight in (1, 10, 100)}
    others = {f"random, {size}, weighted N / M": (few, count / size), **sharp, f"all {count}": (task.data, 1.0)}
    rows = [{"rows": f"distilled, {size}", **judge(found.data, found.weight), "seconds": round(seconds, 1)}]
    rows += [
        {"rows": name, **judge(data, torch.full_like(data["y"], weight))} for name, (data, weight) in others.items()
    ]
    return [{"seed": seed, **row, "R-hat": round(rhat, 2)} for row in rows]


def _judge(
    regression: Regression,
    inputs: Columns,
    mean: Tensor,
    sd: Tensor,
    seed: int,
    steps: int,
    rows: Columns,
    weight: Tensor,
) -> dict[str, float]:
    """Median over students from scratch: error of the mean in the target's sds, ratio of spreads."""
    precision = weight / regression.noise**2
    fits = students.from_scratch(regression, rows, precision, 4, 50 + seed, steps)
    with torch.no_grad():
        found, spread = students.spread(regression, fits.latents, rows, precision, inputs)
    error = ((found - mean) / sd).square().mean(1).sqrt()
    ratio = (spread / sd).log().mean(1).exp()
    return {"error (sds)": round(float(error.median()), 3), "spread ratio": round(float(ratio.median()), 3)}


if __name__ == "__main__":
    commands.run(main)
