"""Solving one target at one or several sizes: closed form, fixed particles, on-policy rounds."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bayesdd.certificate.verdict import certificate_of
from bayesdd.data.distilled import Distilled
from bayesdd.distillation.problem import Problem
from bayesdd.distillation.rounds import ENOUGH, IMPROVEMENT, ROUNDS, SETTLED, Solution, fresh, judge, matched, measured
from bayesdd.numerics.gaussian import moment_matched
from bayesdd.numerics.levenberg_marquardt import least_squares
from bayesdd.numerics.optimise import lbfgs
from bayesdd.objectives import half_variance
from bayesdd.objectives.sorts import Matching, sort_of
from bayesdd.target.particles import Particles
from bayesdd.target.reference import Reference
from bayesdd.target.second_order import SecondOrder
from bayesdd.task.task import Task

STARTS = 2
# Taken while the closed form stays above UNSOLVED: at M = P half of all starts miss a direction for good.
MOST_STARTS = 8
UNSOLVED = 1.0  # nats
STAGE_ONE, STAGE_TWO, STAGE_THREE = 1500, 200, 120  # L-BFGS iterations
LEAST_SQUARES = 40  # Gauss-Newton iterations
# Residuals of the closed form up to which Gauss-Newton is taken (P = 10: 0.05 s, L-BFGS 0.6 s; P = 20: 0.2 and 1.1 s;
# P = 50: 10 and 7 s, but zero where L-BFGS leaves 0.003 nats), and unknowns to each of them for zero to be there.
MOST_RESIDUALS, SPARE = 2000, 2
SOLVED = 1e-9  # nats: a closed form at this value is exact
LARGEST_SECOND_ORDER = 400  # latent coordinates; above, P copies of the rows cost more than particles


class Search:
    """Solves problems of one target at one or several sizes."""

    def __init__(
        self,
        reference: Reference,
        objective: Callable[..., Any],
        seed: int,
        limit: float,
        bar: Any,
        *,
        equal_weights: bool,
        move_rows: bool,
    ) -> None:
        self.reference, self.objective, self.seed, self.limit, self.bar = reference, objective, seed, limit, bar
        self.settings = {"equal_weights": equal_weights, "move_rows": move_rows}
        dim = len(reference.second_order.gradient)
        self.second_order = reference.second_order if dim <= LARGEST_SECOND_ORDER else None

    @property
    def _enough(self) -> float:
        return max(ENOUGH, self.reference.target.noise)

    def at(self, size: int, init: Distilled | None = None) -> Solution:
        """The best solution at one size."""
        if sort_of(self.objective) is Matching:
            start = functools.partial(self._start, size, init)
            return matched(self.reference, self.objective, start, self._closed_form, self.seed, self.bar)
        problem, vector = self._first_stage(size, init)
        solution = Solution(problem, vector)
        if self._held_out(problem, vector) > self._enough:
            particle_sets = [self.reference.particles]
            solution.vector, _ = self._optimise(
                half_variance, problem, vector, particle_sets, self.second_order, STAGE_TWO
            )
        return self._on_policy(solution)

    def _first_stage(self, size: int, init: Distilled | None) -> tuple[Problem, Tensor]:
        """Several starts through the closed form; the best by held-out half-variance."""
        student = self.reference.target.student
        best: tuple[float, Problem, float, Tensor] | None = None
        for attempt in range(MOST_STARTS):
            problem = self._start(size, init, attempt)
            vector, left = self._closed_form(problem)
            score = self._held_out(problem, vector)
            self.bar.set_postfix_str(f"M = {size}, start {attempt + 1}: held-out half-variance {score:.3g} nats")
            if best is None or score < best[0]:
                best = (score, problem, left, vector)
            hopeless = self.reference.bound.at(size) > UNSOLVED
            if score < self._enough or (attempt + 1 >= STARTS and (best[2] < UNSOLVED or hopeless)):
                break
        if best is None or not math.isfinite(best[0]):
            raise ValueError(
                f"{student.name}: the log-likelihood of the starting rows is not finite at draws of the full "
                "posterior; check the kinds of its columns."
            )
        return best[1], best[3]

    def _start(self, size: int, init: Distilled | None, attempt: int) -> Problem:
        """The problem at its starting rows: the earlier set in the first attempt, real rows in the others."""
        student, device = self.reference.target.student, self.reference.target.joint.device
        generator = torch.Generator().manual_seed(self.seed * MOST_STARTS + attempt)
        if init is None or attempt > 0:
            return Problem.random(student, size, generator, device, **self.settings)
        rows, weight = resized(student, init, size, generator)
        return Problem.from_rows(student, rows, weight, device, **self.settings)

    def _closed_form(self, problem: Problem) -> tuple[Tensor, float]:
        """Stage one from the problem's start, and the nats it leaves; the start itself where it is switched off."""
        second, vector = self.second_order, problem.start
        if second is None:
            return vector, 0.0
        student = problem.student
        definite = bool(torch.isfinite(second.forward_kl(student, *problem.hard(vector))))
        form = second.forward_kl if definite else second.half_variance
        enough = max(SOLVED, 0.01 * self.reference.target.noise)
        dim = len(second.gradient)
        if dim + dim * (dim + 1) // 2 <= min(MOST_RESIDUALS, len(vector) / SPARE):
            found, left = least_squares(
                lambda v: second.residuals(student, *problem.hard(v)), vector, LEAST_SQUARES, enough=enough
            )
            if left <= enough:
                return found, left
        return lbfgs(lambda v: form(student, *problem.hard(v)), vector, STAGE_ONE, enough=enough)

    def _held_out(self, problem: Problem, vector: Tensor) -> float:
        with torch.no_grad():
            return float(measured(half_variance, problem, vector, self.reference.held_out))

    def _optimise(
        self,
        objective: Callable[..., Tensor],
        problem: Problem,
        vector: Tensor,
        particle_sets: list[Particles],
        second: SecondOrder | None,
        iterations: int,
    ) -> tuple[Tensor, float]:
        """A functional over particle_sets, plus the closed form as far as the particles leave quadratics undetermined."""
        dim = particle_sets[0].draws.shape[1]
        ridge = min(1.0, dim * (dim + 3) / 2 / sum(len(particles.draws) for particles in particle_sets))

        def total(v: Tensor) -> Tensor:
            value = torch.stack([measured(objective, problem, v, particles) for particles in particle_sets]).mean()
            if second is not None and ridge > 0.05:
                value = value + ridge * second.half_variance(problem.student, *problem.hard(v))
            return value

        return lbfgs(total, vector, iterations, enough=0.1 * self.reference.target.noise)

    def _on_policy(self, solution: Solution) -> Solution:
        """Fresh draws of the distilled posterior, a sweep, re-optimise; a round that is worse is not taken."""
        target, problem, objective = self.reference.target, solution.problem, self.objective
        vector, draws, failures = solution.vector, None, 0
        recent: list[Particles] = []
        settled = max(min(SETTLED, self.limit / 100), self._enough)
        second = self.second_order
        for turn in range(ROUNDS):
            draws = fresh(problem, vector, self.seed, turn, target.draw_divisor, draws)
            particles, score, half = judge(target, problem, vector, draws, objective)
            self.bar.set_postfix_str(f"M = {problem.coordinates.size}, round {turn + 1}: half-variance {half:.3g} nats")
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
            particle_sets = [self.reference.particles, *recent] if objective is half_variance else recent
            vector, _ = self._optimise(objective, problem, solution.vector, particle_sets, second, STAGE_THREE)
        return solution

    def smallest(self, init: Distilled | None) -> Solution:
        """The smallest size that certifies: doubling, then bisection, each size started from its neighbour too."""
        target = self.reference.target
        most = target.student.size
        size = min(most, self.reference.bound.smallest_size(self.limit))
        low, good, warm = size - 1, None, init
        while good is None:
            tried = self.at(size, warm)
            if self._certifies(tried) or size == most:
                good = tried
                break
            low, warm = size, tried.problem.distilled(tried.vector, {})
            size = min(most, 2 * size)
        while good.problem.coordinates.size - low > 1:
            size = (low + good.problem.coordinates.size) // 2
            tried = self.at(size, good.problem.distilled(good.vector, {}))
            if self._certifies(tried):
                good = tried
            else:
                low = size
        return good

    def _certifies(self, solution: Solution) -> bool:
        certificate = certificate_of(
            self.reference.target, solution.problem.density(solution.vector), self.limit, self.seed + 1, solution.draws
        )
        return certificate.ok


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
