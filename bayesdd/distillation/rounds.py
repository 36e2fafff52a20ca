"""One on-policy round: fresh draws of a distilled posterior, one sweep of the full data, a verdict."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayesdd.certificate.estimates import estimate
from bayesdd.certificate.verdict import draw_distilled
from bayesdd.distillation.problem import Problem
from bayesdd.inference.draws import Draws
from bayesdd.numerics.optimise import lbfgs
from bayesdd.numerics.pareto import KHAT_LIMIT
from bayesdd.objectives import half_variance
from bayesdd.objectives.sorts import name_of
from bayesdd.target.particles import Particles, tilted
from bayesdd.target.reference import Reference
from bayesdd.target.target import Target

STARTS = 2
FIRST, LATER = 200, 60  # L-BFGS iterations

ROUNDS = 5
ROUND_DRAWS = 2000
IMPROVEMENT = 0.9  # a round that does not bring its value below this share of the best so far has failed
ENOUGH = 1e-7  # nats: a half-variance below which nothing is left to gain, unless the sweeps' own noise is more
# Sum of both KLs, nats, at which rounds end: a mixture took 15 s to 3e-7, and 32 s more to 1e-7.
SETTLED = 1e-5


@dataclass
class Solution:
    """The best parameter vector so far, judged on fresh draws of its own posterior."""

    problem: Problem
    vector: Tensor
    score: float = math.inf
    draws: Draws | None = None


def fresh(
    problem: Problem, vector: Tensor, seed: int, turn: int, draw_divisor: int, start: Draws | None = None
) -> Draws:
    """Draws of the distilled posterior for round number ``turn``."""
    seed = seed + 7919 * (turn + 1)
    return draw_distilled(problem.density(vector), seed, count=ROUND_DRAWS // draw_divisor, start=start)


def judge(
    target: Target, problem: Problem, vector: Tensor, draws: Draws, objective: Callable[..., Tensor] = half_variance
) -> tuple[Particles, float, float]:
    """The draws as particles of the distilled posterior, the score there (lower is better), and the half-variance.

    The score of the half-variance is the sum of both KLs, of which it is the second order; any other functional is
    judged by itself.

    Raises:
        ValueError: The objective is infinite at this posterior.
    """
    flat = draws.flat
    full = target.log_likelihood(flat)
    with torch.no_grad():
        own = problem.log_likelihood(vector, flat)
    found = estimate(full - own, draws, float(full.abs().max()))
    log_weight = torch.zeros_like(full) if draws.log_weight is None else draws.log_weight.flatten()
    finite = torch.isfinite(full)
    log_weight = log_weight[finite] - log_weight[finite].logsumexp(0)
    particles = Particles(flat[finite], full[finite], log_weight, own[finite])
    if objective is half_variance:
        score = found["kl_reverse"] + (found["kl_forward"] if found["khat"] < KHAT_LIMIT else found["half_variance"])
    else:
        ratio = particles.log_likelihood - particles.own
        if isinstance(objective, functools.partial) and hasattr(objective.func, "refuse_infinite"):
            objective.func.refuse_infinite(ratio, log_weight, problem.coordinates.size, **objective.keywords)
        score = float(objective(ratio, log_weight))
    return particles, score, found["half_variance"]


def measured(objective: Callable[..., Tensor], problem: Problem, vector: Tensor, particles: Particles) -> Tensor:
    """A functional of the log-ratio on particles, nats; differentiable in the vector.

    The half-variance is taken under the particles' own posterior, any other one under the distilled posterior at the
    vector, to which the particles are tilted.
    """
    distilled = problem.log_likelihood(vector, particles.draws)
    log_weight = particles.log_weight if objective is half_variance else tilted(particles, distilled)
    return objective(particles.log_likelihood - distilled, log_weight)


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
        draws = fresh(problem, vector, seed, turn, reference.target.draw_divisor)
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
