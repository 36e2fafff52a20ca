"""Solving one target at one or several sizes: closed form, fixed particles, on-policy rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesdd.certificate import certificate_of, draw_distilled
from bayesdd.distilled import Distilled
from bayesdd.estimates import estimate
from bayesdd.inference.draws import Draws
from bayesdd.matching import SecondOrder
from bayesdd.objectives import half_variance
from bayesdd.optimise import lbfgs
from bayesdd.problem import Problem
from bayesdd.reference import Cloud, Reference
from bayesdd.target import moment_matched
from bayesdd.task import Task

STARTS = 2
MOST_STARTS = (
    8  # taken while the closed form stays above UNSOLVED: at M = P half of all starts miss a direction for good
)
UNSOLVED = 1.0  # nats
STAGE_ONE, STAGE_TWO, STAGE_THREE = 1500, 200, 120  # L-BFGS iterations
ROUNDS = 5
ROUND_DRAWS = 2000
ENOUGH = 1e-7  # nats: a sum of both KLs below which nothing is left to gain
SOLVED = 1e-9  # nats: a closed form at this value is exact
IMPROVEMENT = 0.9
LARGEST_SECOND_ORDER = 400  # latent coordinates; above, P copies of the rows cost more than particles


@dataclass
class Solution:
    """The best parameter vector so far, judged on fresh draws of its own posterior."""

    problem: Problem
    vector: Tensor
    score: float = math.inf
    draws: Draws | None = None


class Search:
    """Solves problems of one target at one or several sizes."""

    def __init__(
        self, reference: Reference, seed: int, limit: float, bar: Any, *, equal_weights: bool, move_rows: bool
    ) -> None:
        self.reference, self.seed, self.limit, self.bar = reference, seed, limit, bar
        self.settings = {"equal_weights": equal_weights, "move_rows": move_rows}
        dim = len(reference.second_order.gradient)
        self.second_order = reference.second_order if dim <= LARGEST_SECOND_ORDER else None

    def at(self, size: int, init: Distilled | None = None) -> Solution:
        """The best solution at one size."""
        problem, vector = self._first_stage(size, init)
        solution = Solution(problem, vector)
        fixed = self.reference.cloud
        if self._held_out(problem, vector) > ENOUGH:
            solution.vector, _ = self._optimise(problem, vector, [fixed], self.second_order, STAGE_TWO)
        return self._on_policy(solution)

    def _first_stage(self, size: int, init: Distilled | None) -> tuple[Problem, Tensor]:
        """Several starts through the closed form; the best by held-out half-variance."""
        student, device = self.reference.target.student, self.reference.target.joint.device
        best: tuple[float, Problem, float, Tensor] | None = None
        for attempt in range(MOST_STARTS):
            generator = torch.Generator().manual_seed(self.seed * MOST_STARTS + attempt)
            if init is not None and attempt == 0:
                rows, weight = resized(student, init, size, generator)
                problem = Problem.from_rows(student, rows, weight, device, **self.settings)
            else:
                problem = Problem.random(student, size, generator, device, **self.settings)
            vector, left = self._closed_form(problem)
            score = self._held_out(problem, vector)
            self.bar.set_postfix_str(f"M = {size}, start {attempt + 1}: held-out half-variance {score:.3g} nats")
            if best is None or score < best[0]:
                best = (score, problem, left, vector)
            hopeless = self.reference.floor(size) > UNSOLVED
            if score < ENOUGH or (attempt + 1 >= STARTS and (best[2] < UNSOLVED or hopeless)):
                break
        if best is None or not math.isfinite(best[0]):
            raise ValueError(
                f"{student.name}: the log-likelihood of the starting rows is not finite at draws of the full "
                "posterior; check the kinds of its columns."
            )
        return best[1], best[3]

    def _closed_form(self, problem: Problem) -> tuple[Tensor, float]:
        """Stage one from the problem's start, and the nats it leaves; the start itself where it is switched off."""
        second, vector = self.second_order, problem.start
        if second is None:
            return vector, 0.0
        student = problem.student
        definite = bool(torch.isfinite(second.forward_kl(student, *problem.hard(vector))))
        form = second.forward_kl if definite else second.half_variance
        return lbfgs(lambda v: form(student, *problem.hard(v)), vector, STAGE_ONE, enough=SOLVED)

    def _held_out(self, problem: Problem, vector: Tensor) -> float:
        with torch.no_grad():
            return float(_spread(problem, vector, self.reference.held_out))

    def _optimise(
        self, problem: Problem, vector: Tensor, clouds: list[Cloud], second: SecondOrder | None, iterations: int
    ) -> tuple[Tensor, float]:
        """Half-variance over clouds, plus the closed form as far as the particles leave quadratics undetermined."""
        dim = clouds[0].draws.shape[1]
        ridge = min(1.0, dim * (dim + 3) / 2 / sum(len(cloud.draws) for cloud in clouds))

        def objective(v: Tensor) -> Tensor:
            value = torch.stack([_spread(problem, v, cloud) for cloud in clouds]).mean()
            if second is not None and ridge > 0.05:
                value = value + ridge * second.half_variance(problem.student, *problem.hard(v))
            return value

        return lbfgs(objective, vector, iterations)

    def _on_policy(self, solution: Solution) -> Solution:
        """Fresh draws of the distilled posterior, a sweep, re-optimise; a round that is worse is not taken."""
        target, problem = self.reference.target, solution.problem
        pool, vector, draws, failures = [self.reference.cloud], solution.vector, None, 0
        second = self.second_order
        for turn in range(ROUNDS):
            draws = draw_distilled(
                problem.density(vector), self.seed + 7919 * (turn + 1), count=ROUND_DRAWS // target.thrift, start=draws
            )
            cloud, score, half = self._judge(problem, vector, draws)
            self.bar.set_postfix_str(f"M = {problem.coordinates.size}, round {turn + 1}: half-variance {half:.3g} nats")
            failures = 0 if score < IMPROVEMENT * solution.score else failures + 1
            if score < solution.score:
                solution = Solution(problem, vector, score, draws)
            if solution.score < ENOUGH or failures == 2 or turn == ROUNDS - 1:
                break
            pool = [pool[0], *pool[1:][-1:], cloud]
            if second is not None and half > 0.05 and score < 50:
                # The Laplace point misses the bulk (skewed posteriors): match at the mean of the draws instead.
                second = SecondOrder.of(moment_matched(draws.flat), target)
            vector, _ = self._optimise(problem, solution.vector, pool, second, STAGE_THREE)
        return solution

    def _judge(self, problem: Problem, vector: Tensor, draws: Draws) -> tuple[Cloud, float, float]:
        flat = draws.flat
        full = self.reference.target.log_likelihood(flat)
        with torch.no_grad():
            ratio = full - problem.log_likelihood(vector, flat)
        found = estimate(ratio, draws, float(full.abs().max()))
        log_weight = torch.zeros_like(ratio) if draws.log_weight is None else draws.log_weight.flatten()
        finite = torch.isfinite(full)
        cloud = Cloud(flat[finite], full[finite], log_weight[finite] - log_weight[finite].logsumexp(0))
        score = found["kl_reverse"] + (found["kl_forward"] if found["khat"] < 0.7 else found["half_variance"])
        return cloud, score, found["half_variance"]

    def smallest(self, init: Distilled | None) -> Solution:
        """The smallest size that certifies: doubling, then bisection, each size started from its neighbour too."""
        target = self.reference.target
        most = target.student.size
        size = min(most, self.reference.smallest_size(self.limit))
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


def _spread(problem: Problem, vector: Tensor, cloud: Cloud) -> Tensor:
    return half_variance(cloud.log_likelihood - problem.log_likelihood(vector, cloud.draws), cloud.log_weight)


def resized(student: Task, init: Distilled, size: int, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """Rows of an earlier set, the heaviest first, topped up with real rows where it has fewer than ``size``."""
    keep = torch.argsort(init.weight, descending=True, stable=True)[:size].sort().values
    rows = {name: column[keep] for name, column in init.data.items()}
    weight = init.weight[keep] * (init.weight.sum() / init.weight[keep].sum())
    if len(keep) < size:
        extra = torch.randint(student.size, (size - len(keep),), generator=generator)
        for name, column in student.data.items():
            more = column[extra]
            if student.soft.get(name):
                more = torch.nn.functional.one_hot(more, student.soft[name]).double()
            rows[name] = torch.cat([rows[name], more])
        weight = torch.cat([weight, torch.full((len(extra),), 1e-3 * float(weight.mean()), dtype=weight.dtype)])
    return rows, weight
