"""What methods that move rows by Adam share: where rows start and what they weigh, whitening, the descent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bayesdd.baselines._parts import checked, rows_at
from bayesdd.data.columns import Columns
from bayesdd.data.distilled import Distilled
from bayesdd.distillation.coordinates import Coordinates
from bayesdd.distillation.problem import Problem
from bayesdd.distillation.stratified import choose, strata
from bayesdd.numerics.refusal import Refusal
from bayesdd.task import kinds
from bayesdd.task.provenance import provenance_of
from bayesdd.task.task import Task

CONSTANT = 1e-8  # eigenvalue of the correlation below which a direction does not vary
LONGEST = 10.0  # length of a gradient, in units of its running mean, from which it is cut


def movable(task: Task, size: int, seed: int, *, hold: bool = False) -> tuple[Problem, Tensor, Tensor]:
    """The real rows from which a method starts, with the weights that they keep.

    The weights are N / M each. Where rows cannot leave their stratum (hard classes, groups, patterns of missing
    entries) it is the stratum's N / M, so that every stratum counts for as much as in the data.

    ``hold``: whether to hold labels that could move.

    Returns:
        The problem, whose vector ends in M log weights; the stratum of every real row ``(N,)``; the real rows where the
        synthetic ones start, ``(M,)``.

    Raises:
        ValueError: ``size`` is not between 1 and N.
    """
    picked, _ = choose(task.data, task.column_kinds, checked(task, size), torch.Generator().manual_seed(seed))
    of_rows = dict(task.column_kinds)
    rows = rows_at(task, picked)
    bounds = task.upper_bounds(rows)
    for name, kind in task.column_kinds.items():
        if hold and (kind.classes or kind.name == kinds.binary.name):
            of_rows[name] = replace(kind, to_free=None, from_free=None)
            if kind.classes:
                rows[name] = torch.nn.functional.one_hot(rows[name].long(), kind.classes).double()
    held = {n: kind if kind.to_free is None else replace(kinds.real, atoms=kind.atoms) for n, kind in of_rows.items()}
    real = strata(task.data, held)
    own, counts = real[picked], torch.bincount(real).double()
    weight = counts[own] / torch.bincount(own, minlength=len(counts))[own]
    weight = weight * (task.size / weight.sum())
    coordinates = Coordinates(task.data, of_rows, rows, bounds)
    problem = Problem(task, coordinates, torch.cat([coordinates.free(), weight.log()]), equal_weights=False)
    return problem, real, picked


def whitening(real: Columns, names: list[str]) -> Callable[[Columns], Tensor]:
    """The map from columns to whitened rows ``(rows, D)``: mean 0 and covariance I over the real rows; differentiable.

    Missing entries stand at their mean; directions in which the real rows do not vary are left out.
    """

    def flat(columns: Columns) -> Tensor:
        return torch.cat([columns[name].reshape(len(columns[name]), -1).double() for name in names], 1)

    values = flat(real)
    mean = values.nanmean(0)
    centred = (values - mean).nan_to_num(0.0)
    spread = centred.square().mean(0).sqrt()
    unit = torch.where(spread > 0, spread, torch.inf)
    eigenvalues, vectors = torch.linalg.eigh((centred / unit).T @ (centred / unit) / len(centred))
    kept = eigenvalues > CONSTANT
    basis = vectors[:, kept] / eigenvalues[kept].sqrt() / unit[:, None]
    return lambda columns: (flat(columns) - mean).nan_to_num(0.0) @ basis


def moved(
    method: str,
    problem: Problem,
    loss: Callable[[Tensor], Tensor],
    seed: int,
    iterations: int,
    rate: float,
    learn_weights: bool,
    others: Sequence[Tensor] = (),
) -> Distilled:
    """The rows after Adam on a noisy loss of the problem's vector, its step size decaying to zero as a cosine.

    Args:
        method: Name of the method, for the provenance and the error.
        problem: The problem.
        loss: ``(n,)`` -> zero-dimensional; steps with a gradient that is not finite are left out.
        seed: Seed of the loss, for the provenance.
        others: Further leaves that move with the vector (learned step sizes).

    Raises:
        ValueError: No gradient was finite.
    """
    vector = problem.start.clone().requires_grad_(True)
    free = len(vector) if learn_weights else len(vector) - problem.coordinates.size
    adam = torch.optim.Adam([vector, *others], lr=rate)
    usual = 0.0
    any_finite = iterations == 0
    for step in range(iterations):
        adam.param_groups[0]["lr"] = 0.5 * rate * (1 + math.cos(math.pi * step / iterations))
        adam.zero_grad()
        loss(vector).backward()
        slopes = [leaf.grad for leaf in (vector, *others) if leaf.grad is not None]
        slopes[0][free:] = 0.0
        norm = math.sqrt(sum(float(slope.square().sum()) for slope in slopes))
        if not math.isfinite(norm):
            continue
        # Adam remembers squares for a thousand steps: one gradient of 1e100 would stop the rows for good.
        for slope in slopes if norm > LONGEST * usual > 0 else ():
            slope *= LONGEST * usual / norm
        usual = 0.9 * usual + 0.1 * min(norm, LONGEST * usual) if usual else norm
        adam.step()
        any_finite = True
    if not any_finite:
        raise Refusal(
            f"{method}: no gradient with respect to the rows of {problem.student.name} was finite in {iterations} "
            "steps; start from other rows (another seed), or lower the rate."
        )
    task = problem.student
    return problem.distilled(vector, provenance_of(task, [task], seed, problem.coordinates.size, objective=method))
