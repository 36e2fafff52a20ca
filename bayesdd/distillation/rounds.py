"""On-policy rounds: fresh draws of the distilled posterior, one sweep of the full data there, and a better fit."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesdd.certificate.estimates import estimate
from bayesdd.certificate.verdict import draw_distilled
from bayesdd.data.distilled import Distilled
from bayesdd.distillation.cubic_energy import closest_cubic
from bayesdd.distillation.first_stage import (
    STARTS,
    Run,
    Start,
    closed_form,
    held_out_half_variance,
    starting_problem,
)
from bayesdd.distillation.least_squares import MOST_UNKNOWNS, levenberg_marquardt
from bayesdd.distillation.problem import Problem
from bayesdd.inference.draws import Draws
from bayesdd.numerics.gaussian import moment_matched
from bayesdd.numerics.optimise import lbfgs
from bayesdd.numerics.pareto import KHAT_LIMIT
from bayesdd.numerics.refusal import Refusal
from bayesdd.objectives import half_variance
from bayesdd.objectives.sorts import name_of
from bayesdd.target.particles import Particles, noise, tilted
from bayesdd.target.second_order import SecondOrder
from bayesdd.target.target import Target

ROUNDS = 5
ROUND_DRAWS = 2000
IMPROVEMENT = 0.9  # a round that does not bring its value below this share of the best so far has failed
SETTLED = 1e-5  # nats, value of any other functional at which rounds end, if the tolerance asks for no less
FIXED, ROUND = (20, 200), (20, 120)  # steps of Levenberg-Marquardt, or of L-BFGS, on fixed particles and in a round
TURNS = 8  # of that on fixed particles
PER_UNKNOWN = 1.5  # particles an unknown from which Levenberg-Marquardt serves; with fewer it fits their noise
MUCH = 0.05  # of a quadratic that particles leave undetermined, from which the closed form takes part
# Of L-BFGS on any other objective: from starting rows, and in a round.
FIRST_ITERATIONS, LATER_ITERATIONS = 200, 60


@dataclass(frozen=True, eq=False)
class Solution:
    """A parameter vector, and how it was judged on fresh draws of its own posterior.

    Attributes:
        problem: The problem that the vector belongs to.
        vector: Rows and weights, ``(n,)``.
        score: Lower is better; infinite before it was judged.
        draws: The draws that it was judged on.
    """

    problem: Problem
    vector: Tensor
    score: float = math.inf
    draws: Draws | None = None


def polished(run: Run, start: Start) -> Start:
    """The half-variance over fixed particles of the full posterior, minimised while held-out particles gain by it.

    Held-out particles that do not stand for the full posterior cannot say: then one turn is taken.
    """
    problem = start.problem
    if crowded(run, problem):
        return start if start.score <= run.limit else _closest_cubic(run, start)
    fixed = [run.reference.particles]
    for turn in range(TURNS):
        vector = optimised(run, half_variance, problem, start.vector, fixed, run.second_order, FIXED)
        found = Start(problem, vector, held_out_half_variance(run, problem, vector))
        run.judged(problem.coordinates.size, f"fixed particles, turn {turn + 1}", "half-variance", found.score)
        if not run.reference.trusted:
            return found
        gained = found.score < IMPROVEMENT * start.score
        start = found if found.score < start.score else start
        if not gained or start.score <= run.aim:
            break
    return start


def crowded(run: Run, problem: Problem) -> bool:
    """Whether the rows have more unknowns than there are particles, which would be fitted in place of the posterior."""
    return problem.moving > len(run.reference.draws)


def _closest_cubic(run: Run, start: Start) -> Start:
    """The start, or rows that come closer to third order without particles, by held-out half-variance."""
    if run.second_order is None or not run.reference.trusted:
        return start
    vector = closest_cubic(run.reference.target, run.second_order, start.problem, start.vector)
    if vector is None:
        return start
    found = Start(start.problem, vector, held_out_half_variance(run, start.problem, vector))
    run.judged(start.problem.coordinates.size, "cubic in closed form", "half-variance", found.score)
    return found if found.score < start.score else start


def refined(run: Run, solution: Solution) -> Solution:
    """On-policy rounds of a functional of the log-ratio; a round that is worse is not taken."""
    target, problem, objective = run.reference.target, solution.problem, run.objective
    vector, draws, failures = solution.vector, None, 0
    recent: list[Particles] = []
    second = run.second_order
    settled = run.aim if objective is half_variance else min(SETTLED, run.aim)
    for turn in range(ROUNDS):
        draws = _fresh(run, problem, vector, turn, draws)
        particles, score, half = _judged(target, problem, vector, draws, objective)
        run.judged(problem.coordinates.size, f"round {turn + 1}", "half-variance", half)
        failures = 0 if score < IMPROVEMENT * solution.score else failures + 1
        if score < solution.score:
            solution = Solution(problem, vector, score, draws)
        if solution.score < settled or failures == 2 or turn == ROUNDS - 1:
            break
        recent = [*recent[-1:], particles]
        if second is not None and half > 0.05 and score < 50:
            # The Laplace point misses the bulk (skewed posteriors): match at the mean of the draws instead.
            second = SecondOrder.of(moment_matched(draws.flat), target)
        # A functional of the distilled posterior is not judged at draws of the full one.
        particle_sets = [run.reference.particles, *recent] if objective is half_variance else recent
        vector = optimised(run, objective, problem, solution.vector, particle_sets, second, ROUND)
    return solution


def matched(run: Run, size: int, init: Distilled | None) -> Solution:
    """Rounds of an objective ``(reference) -> loss(rows, weight)``: the best of several starts, then fresh draws.

    They end when the objective on draws of the solution's own posterior agrees with what was minimised. The closed form
    is not used first, since an objective that leaves directions of the posterior free would be credited with it; only
    where the objective has no value at real rows, whose posterior is too far from the draws at hand.

    Raises:
        Refusal: The objective is not finite at any starting rows.
    """
    reference = run.reference.sampled(run.seed)
    loss = run.objective(reference)

    def on_policy(problem: Problem, vector: Tensor, turn: int) -> tuple[Callable[..., Tensor], Draws]:
        """The loss with draws of the posterior at a vector."""
        draws = _fresh(run, problem, vector, turn)
        policy, _, _ = _judged(reference.target, problem, vector, draws, half_variance)
        return run.objective(replace(reference, policy=policy)), draws

    best: tuple[float, Problem, Tensor] | None = None
    for attempt in range(STARTS):
        problem = starting_problem(run, size, init, attempt)
        vector, value = _minimised(loss, problem, problem.start, FIRST_ITERATIONS)
        if not math.isfinite(value):
            vector, _ = closed_form(run, problem)
            here = loss
            if not math.isfinite(float(loss(*problem.hard(vector)).detach())):
                # Far from Gaussian: draws of the full posterior's fit say nothing here, but the solution's own do.
                here, _ = on_policy(problem, vector, ROUNDS + attempt)
            vector, value = _minimised(here, problem, vector, FIRST_ITERATIONS)
        run.judged(size, f"start {attempt + 1}", "objective", value)
        if best is None or value < best[0]:
            best = value, problem, vector
    if best is None or not math.isfinite(best[0]):
        raise Refusal(
            f"the objective {name_of(run.objective)} is not finite at any starting rows of "
            f"{reference.target.student.name}: check the kinds of its columns, or take half_variance."
        )
    value, problem, vector = best
    solution = Solution(problem, vector)
    for turn in range(ROUNDS):
        loss, draws = on_policy(problem, vector, turn)
        found = float(loss(*problem.hard(vector)).detach())
        run.judged(size, f"round {turn + 1}", "objective", found)
        if found < solution.score:
            solution = Solution(problem, vector, found, draws)
        if abs(found - value) <= (1 - IMPROVEMENT) * abs(value) or turn == ROUNDS - 1:
            break
        vector, value = _minimised(loss, problem, solution.vector, LATER_ITERATIONS)
    return solution


def optimised(
    run: Run,
    objective: Callable[..., Tensor],
    problem: Problem,
    vector: Tensor,
    particle_sets: list[Particles],
    second: SecondOrder | None,
    most: tuple[int, int],
) -> Tensor:
    """A functional minimised over particles, plus the closed form as far as these leave quadratics undetermined.

    ``most`` are steps of Levenberg-Marquardt, which minimises the half-variance of few unknowns, and of L-BFGS, which
    minimises all else.
    """
    dim, count = particle_sets[0].draws.shape[1], sum(len(particles.draws) for particles in particle_sets)
    ridge = min(1.0, dim * (dim + 3) / 2 / count)
    quadratic = None if ridge <= MUCH else second
    steps, iterations = most
    enough = 0.1 * max(noise(particle_sets), run.aim if objective is half_variance else 0.0)
    unknowns = problem.moving
    if (
        objective is half_variance
        and quadratic is None
        and PER_UNKNOWN * unknowns <= count
        and unknowns <= MOST_UNKNOWNS
    ):
        return levenberg_marquardt(problem, vector, particle_sets, steps, enough)

    def total(v: Tensor) -> Tensor:
        value = torch.stack([measured(objective, problem, v, particles) for particles in particle_sets]).mean()
        if quadratic is not None:
            value = value + ridge * quadratic.half_variance(problem.student, *problem.hard(v))
        return value

    return lbfgs(total, vector, iterations, enough=enough)[0]


def measured(objective: Callable[..., Tensor], problem: Problem, vector: Tensor, particles: Particles) -> Tensor:
    """A functional of the log-ratio on particles, nats; differentiable in the vector.

    The half-variance is taken under the particles' own posterior, any other functional under the distilled posterior at
    the vector, to which the particles are tilted.
    """
    distilled = problem.log_likelihood(vector, particles.draws)
    log_weight = particles.log_weight if objective is half_variance else tilted(particles, distilled)
    return objective(particles.log_likelihood - distilled, log_weight)


def _fresh(run: Run, problem: Problem, vector: Tensor, turn: int, start: Draws | None = None) -> Draws:
    """Draws of the distilled posterior for round number ``turn``."""
    count = ROUND_DRAWS // run.reference.target.draw_divisor
    return draw_distilled(problem.density(vector), run.seed + 7919 * (turn + 1), count=count, start=start)


def _judged(
    target: Target, problem: Problem, vector: Tensor, draws: Draws, objective: Callable[..., Tensor]
) -> tuple[Particles, float, float]:
    """The draws as particles of the distilled posterior, the score there (lower is better), and the half-variance.

    The score of the half-variance is the sum of both KLs, of which it is the second order; any other functional is its
    own score.

    Raises:
        Refusal: The objective is infinite at this posterior.
    """
    flat = draws.flat
    full, error = target.log_likelihood(flat)
    with torch.no_grad():
        own = problem.log_likelihood(vector, flat)
    found = estimate(full - own, draws, float(full.abs().max()))
    finite = torch.isfinite(full)
    log_weight = draws.flat_log_weight[finite] - draws.flat_log_weight[finite].logsumexp(0)
    particles = Particles(flat[finite], full[finite], log_weight, own[finite], error)
    if objective is half_variance:
        score = found["kl_reverse"] + (found["kl_forward"] if found["khat"] < KHAT_LIMIT else found["half_variance"])
    else:
        ratio = particles.log_likelihood - particles.own
        if isinstance(objective, functools.partial) and hasattr(objective.func, "refuse_infinite"):
            objective.func.refuse_infinite(ratio, log_weight, problem.coordinates.size, **objective.keywords)
        score = float(objective(ratio, log_weight))
    return particles, score, found["half_variance"]


def _minimised(loss: Callable[..., Tensor], problem: Problem, vector: Tensor, most: int) -> tuple[Tensor, float]:
    return lbfgs(lambda v: loss(*problem.hard(v)), vector, most)
