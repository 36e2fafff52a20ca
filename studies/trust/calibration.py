"""Simulation-based calibration of three tasks, of all rows and of distilled ones, and coverage of ``corrected``.

Claim: ranks of the truth among posterior draws are uniform (p above 0.01 for each task, its parameters counted), and
intervals of ``certificate.corrected`` (mean and 1.645 sds) hold the truth as often as 90 % and its error allow.
How it could fail: a sampler, a distillation or a correction that is too narrow, too wide or off.
Cost: one second of processor time a replication.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch

import bayesdd
from studies.trust.tasks import classes, regression, visits

TITLE = "Calibration"
NOTE = (
    "Truths of the prior, rows simulated from them. p: least p-value of uniform ranks (chi-square), times the number "
    "of parameters. Held: truths within the corrected mean and 1.645 sds of sets distilled to three rows, of both "
    "parameters together; 90 % are expected, and between the bounds a binomial's four standard errors."
)
REPLICATIONS, CHUNK, ROWS, SIZE = 200, 50, 60, 3
FAR_APART = 10**6  # seeds of chunks: a replication's differ by 7919
LEAST_P, LEVEL, WIDE = 0.01, 0.9, 1.6448536  # sds either side that hold 90 % of a normal
ERRORS = 4.0  # standard errors of a share, two parameters of a replication counted as one
TASKS = {"linear": regression, "logistic": classes, "Poisson": visits}


def parts(smoke: bool) -> dict[str, list[str]]:
    """Cell -> words for :func:`cell`."""
    if smoke:
        return {"linear": ["linear", "0", "20"]}
    return {
        f"{name}_{first}": [name, str(first), str(first + CHUNK)]
        for first in range(0, REPLICATIONS, CHUNK)
        for name in TASKS
    }


def cell(name: str, first: str, end: str) -> dict[str, Any]:
    """Ranks of truths given all rows, and whether corrected intervals of distilled sets hold them."""
    task, begin, count = TASKS[name](ROWS), int(first), int(end) - int(first)
    found = bayesdd.calibrate(task, replications=count, seed=1 + FAR_APART * begin)
    truths = task.prior_draws(count, 10 + begin)
    held = [_holds(task, truths[k], begin + k) for k in range(count)]
    return {"task": name, "ranks": found.ranks.to_dict("list"), "draws": found.draws, "held": held}


def table(found: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a task."""
    rows = []
    for name in TASKS:
        here = [one for one in found if one["task"] == name]
        if not here:
            continue
        ranks = pd.concat([pd.DataFrame(one["ranks"]) for one in here], ignore_index=True)
        values = bayesdd.Calibration(ranks, here[0]["draws"], 0).p_value
        p, held = float(values.min()) * len(values), [one for part in here for one in part["held"]]
        share, off = float(np.mean(held)), ERRORS * math.sqrt(LEVEL * (1 - LEVEL) / len(held))
        rows.append(
            {
                "task": name,
                "replications": len(ranks),
                "p": min(1.0, p),
                "held": share,
                "bounds": f"{LEVEL - off:.2f} to {min(1.0, LEVEL + off):.2f}",
                "met": p > LEAST_P and abs(share - LEVEL) <= off,
            }
        )
    return pd.DataFrame(rows)


def _holds(task: bayesdd.Task, truth: torch.Tensor, seed: int) -> list[bool]:
    """Whether corrected intervals of a set, distilled from rows of this truth, hold it."""
    rows = task.simulate({"x": task.data["x"]}, task.constrain(truth[None]), 77 + seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bayesdd.CertificateWarning)
        warnings.simplefilter("ignore", bayesdd.DataNote)
        simulated = task.with_data({"x": task.data["x"], "y": rows["y"][0].double()})
        distilled = bayesdd.distill(simulated, SIZE, tolerance=1.0, seed=seed, progress=False)
    assert isinstance(distilled.certificate, bayesdd.Certificate)
    said = distilled.certificate.corrected
    assert said is not None
    return (np.abs(said["mean"] - truth.numpy()) <= WIDE * said["sd"]).tolist()
