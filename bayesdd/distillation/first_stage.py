"""The first stage: real rows to start from, second order in closed form, third order where there is room for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.data.distilled import Distilled
from bayesdd.data.strata import with_each_value
from bayesdd.distillation import stratified
from bayesdd.distillation.least_squares import has_room, particles_needed, size_with_room, third_order
from bayesdd.distillation.problem import Problem
from bayesdd.numerics.levenberg_marquardt import least_squares
from bayesdd.numerics.optimise import lbfgs
from bayesdd.numerics.refusal import Refusal
from bayesdd.objectives import half_variance
from bayesdd.target.particles import noise
from bayesdd.target.reference import Reference
from bayesdd.target.second_order import SecondOrder
from bayesdd.task.task import Task

STARTS = 2
MOST_STARTS = 8  # while the closed form stays above UNSOLVED: at M = P half of all starts miss a direction for good
UNSOLVED = 1.0  # nats
SOLVED = 1e-9  # nats: a closed form at this value is exact
SHARE = 0.1  # of the tolerance, at which the search ends: the certificate's own draws may say a few times as much
ENOUGH = 1e-11  # nats: below, the rounding of log-likelihoods of many rows hides what is left
UNFINISHED = 1e-4  # nats left by third order from which it is tried from other rows
ITERATIONS = 1500  # of L-BFGS
# Gauss-Newton is faster up to so many residuals, and finds the zero if there are at least SPARE unknowns for each.
LEAST_SQUARES, MOST_RESIDUALS, SPARE = 40, 2000, 2
TRIED = 16  # rows whose unknowns are counted for the size that has room for third order
LARGEST_SECOND_ORDER = 400  # latent coordinates; above, P copies of the rows cost more than particles


@dataclass(frozen=True, eq=False)
class Run:
    """What all stages of one run need to know: the full posterior and the settings of ``distill``.

    A KL within ``limit`` nats is certified; ``say`` shows a line of progress; ``stratify`` is the column whose values
    the starting rows have.
    """

    reference: Reference
    objective: Callable[..., Any]
    seed: int
    limit: float
    say: Callable[[str], None]
    equal_weights: bool
    move_rows: bool
    stratify: str | None = None
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def judged(self, size: int, stage: str, what: str, nats: float) -> None:
        """Shows how a start or round came out, and records it for the provenance."""
        self.say(f"M = {size}, {stage}: {what} {nats:.3g} nats")
        self.rounds.append({"size": size, "stage": stage, "what": what, "nats": nats})

    @cached_property
    def pool(self) -> Columns:
        """The rows from which starting rows are chosen."""
        student = self.reference.target.student
        return student.data if self.stratify is None else with_each_value(student.rows, self.stratify)

    @property
    def second_order(self) -> SecondOrder | None:
        """What the closed form needs; None where there are too many latent coordinates for it."""
        second = self.reference.second_order
        return second if len(second.gradient) <= LARGEST_SECOND_ORDER else None

    @property
    def solved(self) -> float:
        """Nats at which second or third order counts as matched: the last steps are quick, whatever the tolerance."""
        return max(SOLVED, 0.01 * noise([self.reference.held_out]))

    @property
    def aim(self) -> float:
        """Half-variance, nats, at which the search ends: enough for the tolerance, or hidden by the sweep's noise."""
        return max(SHARE * self.limit, ENOUGH, noise([self.reference.held_out]))


class Start(NamedTuple):
    """Where a stage ended: the problem, its vector and the held-out half-variance, nats."""

    problem: Problem
    vector: Tensor
    score: float


def first_stage(run: Run, size: int, init: Distilled | None) -> Start:
    """Second order, and third where there is room for it; the better by held-out half-variance.

    Raises:
        Refusal: The log-likelihood is not finite at any starting rows.
    """
    found = _second_order(run, size, init)
    second = run.second_order
    if second is None or run.objective is not half_variance:
        return found
    for attempt in range(STARTS):
        problem = starting_problem(run, size, None, attempt)
        if not has_room(problem, len(second.gradient), len(run.reference.draws)):
            break
        particles = run.reference.some(particles_needed(len(second.gradient)))
        vector = third_order(problem, second.gaussian, particles, run.solved)
        score = held_out_half_variance(run, problem, vector)
        run.judged(size, f"third order, start {attempt + 1}", "half-variance", score)
        if score < found.score:
            found = Start(problem, vector, score)
        if score < max(UNFINISHED, run.aim):
            break
    return found


def third_order_size(run: Run) -> int | None:
    """The number of rows that have room for third order; None where no number of them has."""
    if run.second_order is None or not run.move_rows:
        return None
    rows = run.reference.target.student.size
    problem = starting_problem(run, min(TRIED, rows), None, 0)
    found = size_with_room(problem, len(run.second_order.gradient), len(run.reference.draws))
    return found if found is not None and found <= rows else None


def _second_order(run: Run, size: int, init: Distilled | None) -> Start:
    """Several starts through the closed form; the best by held-out half-variance."""
    best: tuple[float, Problem, float, Tensor] | None = None
    hopeless = run.reference.bound.at(size) > UNSOLVED
    for attempt in range(MOST_STARTS):
        problem = starting_problem(run, size, init, attempt)
        vector, left = closed_form(run, problem)
        score = held_out_half_variance(run, problem, vector)
        run.judged(size, f"start {attempt + 1}", "half-variance", score)
        if best is None or score < best[0]:
            best = (score, problem, left, vector)
        # Exact starts of very many unknowns end alike: of 100 rows of 50 covariates, within a tenth of each other.
        alike = left <= run.solved and problem.moving > len(run.reference.draws) and score <= run.limit
        if score < run.aim or alike or (attempt + 1 >= STARTS and (best[2] < UNSOLVED or hopeless)):
            break
    if best is None or not math.isfinite(best[0]):
        raise Refusal(
            f"{run.reference.target.student.name}: the log-likelihood of the starting rows is not finite at draws of "
            "the full posterior; check the kinds of its columns."
        )
    return Start(best[1], best[3], best[0])


def starting_problem(run: Run, size: int, init: Distilled | None, attempt: int) -> Problem:
    """The problem at its starting rows: the earlier set in the first attempt, real rows in the others."""
    student, device = run.reference.target.student, run.reference.target.joint.device
    generator = torch.Generator().manual_seed(run.seed * MOST_STARTS + attempt)
    if init is not None and attempt == 0:
        rows, weight = resized(student, init, size, generator)
    else:
        picked, weight = stratified.choose(run.pool, student.column_kinds, size, generator, run.stratify)
        weight = weight * (student.total / weight.sum())
        rows = {name: column[picked] for name, column in run.pool.items()}
    settings = {"equal_weights": run.equal_weights, "move_rows": run.move_rows}
    return Problem.from_rows(student, rows, weight, device, **settings)


def closed_form(run: Run, problem: Problem) -> tuple[Tensor, float]:
    """The vector that matches second order, and the nats that it leaves; the problem's start where P is too large."""
    second, student, vector = run.second_order, problem.student, problem.start
    if second is None:
        return vector, 0.0
    definite = bool(torch.isfinite(second.forward_kl(student, *problem.hard(vector))))
    form = second.forward_kl if definite else second.half_variance
    solved = run.solved
    dim = len(second.gradient)
    if dim + dim * (dim + 1) // 2 <= min(MOST_RESIDUALS, len(vector) / SPARE):
        found, left = least_squares(
            lambda v: second.residuals(student, *problem.hard(v)), vector, LEAST_SQUARES, enough=solved
        )
        if left <= solved:
            return found, left
    return lbfgs(lambda v: form(student, *problem.hard(v)), vector, ITERATIONS, enough=solved)


def held_out_half_variance(run: Run, problem: Problem, vector: Tensor) -> float:
    """Half-variance of the log-ratio on the held-out particles, nats."""
    particles = run.reference.held_out
    with torch.no_grad():
        ratio = particles.log_likelihood - problem.log_likelihood(vector, particles.draws)
        return float(half_variance(ratio, particles.log_weight))


def resized(student: Task, init: Distilled, size: int, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """Rows of an earlier set, the heaviest first, topped up with real rows where it has fewer than ``size``."""
    keep = torch.argsort(init.weight, descending=True, stable=True)[:size].sort().values
    rows = {name: column[keep] for name, column in init.data.items()}
    weight = init.weight[keep] * (init.weight.sum() / init.weight[keep].sum())
    if len(keep) < size:
        extra = torch.randint(len(next(iter(student.data.values()))), (size - len(keep),), generator=generator)
        for name, column in student.data.items():
            more = column[extra]
            if student.soft.get(name):
                more = torch.nn.functional.one_hot(more, student.soft[name]).double()
            rows[name] = torch.cat([rows[name], more])
        weight = torch.cat([weight, torch.full((len(extra),), 1e-3 * float(weight.mean()), dtype=weight.dtype)])
    return rows, weight
