"""Solving for an objective that is no functional of the log-ratio: from real rows alone, then rounds of fresh draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from bayesdd.inference.draws import Draws
from bayesdd.optimise import lbfgs
from bayesdd.problem import Problem
from bayesdd.reference import Reference
from bayesdd.rounds import IMPROVEMENT, ROUNDS, Solution, fresh, judge, name_of

STARTS = 2
FIRST, LATER = 200, 60  # L-BFGS iterations


def matched(
    reference: Reference,
    objective: Callable[..., Any],
    start: Callable[[int], Problem],
    closed_form: Callable[[Problem], tuple[Tensor, float]],
    seed: int,
    bar: Any,
) -> Solution:
    """The best of several starts, refined on draws of its own posterior until the objective there agrees.

    No closed form goes before it, since an objective that leaves directions of the posterior free would be credited
    with it; unless the objective has no value at real rows, whose posterior is too far from any draws at hand.

    Args:
        reference: The full posterior.
        objective: ``(reference) -> loss(rows, weight)``.
        start: Number of an attempt -> problem at its starting rows.
        closed_form: Problem -> vector that matches the full posterior to second order, and the nats that it leaves.
        seed: Seed of the fresh draws.
        bar: Progress bar.

    Raises:
        ValueError: The objective is not finite at any starting rows.
    """
    reference = reference.sampled(seed)
    loss = objective(reference)

    def on_policy(problem: Problem, vector: Tensor, turn: int) -> tuple[Callable[..., Tensor], Draws]:
        """The loss with draws of the posterior at a vector."""
        draws = fresh(problem, vector, seed, turn, reference.target.thrift)
        policy, _, _ = judge(reference.target, problem, vector, draws)
        return objective(replace(reference, policy=policy)), draws

    best: tuple[float, Problem, Tensor] | None = None
    for attempt in range(STARTS):
        problem = start(attempt)
        vector, value = _minimised(loss, problem, problem.start, FIRST)
        if not math.isfinite(value):
            vector, _ = closed_form(problem)
            here = loss
            if not math.isfinite(float(loss(*problem.hard(vector)).detach())):
                # Far from Gaussian: no draws of the full posterior's fit say anything here, draws of its own do.
                here, _ = on_policy(problem, vector, ROUNDS + attempt)
            vector, value = _minimised(here, problem, vector, FIRST)
        bar.set_postfix_str(f"start {attempt + 1}: objective {value:.3g} nats")
        if best is None or value < best[0]:
            best = value, problem, vector
    if best is None or not math.isfinite(best[0]):
        raise ValueError(
            f"the objective {name_of(objective)} is not finite at any starting rows of "
            f"{reference.target.student.name}: check the kinds of its columns, or take half_variance."
        )
    value, problem, vector = best
    solution = Solution(problem, vector)
    for turn in range(ROUNDS):
        loss, draws = on_policy(problem, vector, turn)
        found = float(loss(*problem.hard(vector)).detach())
        bar.set_postfix_str(f"round {turn + 1}: objective {found:.3g} nats")
        if found < solution.score:
            solution = Solution(problem, vector, found, draws)
        if abs(found - value) <= (1 - IMPROVEMENT) * abs(value) or turn == ROUNDS - 1:
            break
        vector, value = _minimised(loss, problem, solution.vector, LATER)
    return solution


def _minimised(loss: Callable[..., Tensor], problem: Problem, vector: Tensor, most: int) -> tuple[Tensor, float]:
    return lbfgs(lambda v: loss(*problem.hard(v)), vector, most)
