"""Solves a distillation at one size, or searches the smallest size that certifies."""

from __future__ import annotations

from bayesdd.certificate.verdict import certificate_of
from bayesdd.data.certificate import Certificate
from bayesdd.data.distilled import Distilled
from bayesdd.distillation.first_stage import Run, enough, first_stage, held_out_half_variance
from bayesdd.distillation.rounds import Solution, matched, optimised, refined
from bayesdd.objectives import half_variance
from bayesdd.objectives.sorts import Matching, sort_of

OWN = 500_009  # keeps the seeds of certificates made here apart from those that users give to certify
ITERATIONS = 200  # of L-BFGS on fixed particles


def solved(run: Run, size: int, init: Distilled | None = None) -> Solution:
    """The best solution at one size: closed form, fixed particles if that is not enough, on-policy rounds."""
    if sort_of(run.objective) is Matching:
        return matched(run, size, init)
    problem, vector = first_stage(run, size, init)
    if held_out_half_variance(run, problem, vector) > enough(run):
        particle_sets = [run.reference.particles]
        vector = optimised(half_variance, problem, vector, particle_sets, run.second_order, ITERATIONS)
    return refined(run, Solution(problem, vector))


def smallest(run: Run, init: Distilled | None = None) -> Solution:
    """The smallest size that certifies, by doubling and then bisection; each size starts from its neighbour's rows."""
    most = run.reference.target.student.size
    size = min(most, run.reference.bound.smallest_size(run.limit))
    low, warm = size - 1, init
    good = solved(run, size, warm)
    while not certified(run, good).ok and size < most:
        low, warm = size, good.problem.distilled(good.vector, {})
        size = min(most, 2 * size)
        good = solved(run, size, warm)
    while size - low > 1:
        middle = (low + size) // 2
        tried = solved(run, middle, good.problem.distilled(good.vector, {}))
        if certified(run, tried).ok:
            size, good = middle, tried
        else:
            low = middle
    return good


def certified(run: Run, solution: Solution) -> Certificate:
    """The certificate of a solution, from fresh draws."""
    target, density = run.reference.target, solution.problem.density(solution.vector)
    return certificate_of(target, density, run.limit, OWN + run.seed, solution.draws, target.laplace)
