"""Checks of a target's predictive itself: rows certified against a target that is wrong are wrong with it.

A model calls what it leaves of its rows independent noise. What a network of its size cannot follow is smooth instead:
neighbours are off alike, a few of them say as much as all, and sds that count every row are far too narrow. The
correlation of standardised residuals with those of their nearest neighbours tells the two apart, and needs no truth.

Source: Moran, "Notes on continuous stochastic phenomena", Biometrika 1950.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesdd.data.accuracy import LEVEL, Z90
from bayesdd.inference.observed_rows import observed
from bayesdd.target.target import Target
from bayesdd.task.program import Feeder, is_deterministic, running
from bayesdd.task.task import Task

APART = 2.0  # between modes, in sds of each: between draws of one normal posterior it is about one
ALIKE, ROWS, FEWEST = 0.4, 1000, 20  # correlation of neighbours that is no chance; most and fewest rows looked at
HEDGED = 0.1  # of a residual's variance: where the model expects ten times as much, sds are wide enough
SURE = 3.0  # standard errors by which chance explains that fewer rows are held


def disagreement(values: Tensor) -> str:
    """What is said where C modes predict so differently that none of them admits it; ``(C, draws, K)``."""
    if len(values) == 1:
        return ""
    between, within = values.mean(1).var(0).mean().sqrt(), values.var(1).mean().sqrt()
    if not between > APART * within:
        return ""
    return f"its {len(values)} modes differ by {float(between / within):.2g} of the sds that each of them states"


def missed(mean: Tensor, sd: Tensor, outcome: Tensor) -> str:
    """What is said where 90 % intervals ``(N,)`` hold fewer rows held out than chance explains.

    ``sd`` includes the noise of an outcome.
    """
    count, share = len(outcome), held_of(mean, sd, outcome)
    least = LEVEL - SURE * math.sqrt(LEVEL * (1 - LEVEL) / count)
    return "" if share >= least else f"its 90% intervals hold {share:.0%} of {count} rows held out"


def smooth(target: Target, mode: Tensor) -> str:
    """What is said where residuals at a mode ``(P,)`` of the whole target are smooth, not noise; it names the task."""
    found = []
    for part in target.joint.parts:
        alike = _of_neighbours(part.task, mode[part.index])
        if alike > ALIKE:
            found.append(
                f"what it leaves of {part.task.name} is smooth, not noise (correlation of neighbours {alike:.2f}), so "
                "that its sds are too narrow"
            )
    return "; ".join(found)


def _of_neighbours(task: Task, latents: Tensor) -> float:
    """The largest correlation of a normal site's residuals between nearest neighbours; 0 where there is none."""
    rows = {name: column[:ROWS] for name, column in task.data.items()}
    outcomes = {site.column for site in task.structure.observed}
    inputs = [column.double().reshape(len(column), -1) for name, column in rows.items() if name not in outcomes]
    if not inputs or len(inputs[0]) < FEWEST:
        return 0.0
    places = torch.cat(inputs, 1)
    places = (places - places.mean(0)) / places.std(0).clamp_min(1e-12)
    neighbour = torch.cdist(places, places).fill_diagonal_(torch.inf).argmin(1)
    with running(), torch.no_grad():
        seen = observed(task, Feeder(task.program, latents), rows)
    found = [0.0]
    for site in seen:
        if type(site["fn"]).__name__ != "Normal" or is_deterministic(site):
            continue
        z = ((site["value"] - site["fn"].mean) / site["fn"].stddev).reshape(len(places), -1)[:, 0]
        if float(z.square().mean()) > HEDGED:
            found.append(float((z * z[neighbour]).mean() / z.square().mean()))
    return max(found)


def held_of(mean: Tensor, sd: Tensor, outcome: Tensor) -> float:
    """Share of outcomes inside 90 % intervals, ``(N,)`` each."""
    return float(((outcome - mean).abs() <= Z90 * sd).double().mean())
