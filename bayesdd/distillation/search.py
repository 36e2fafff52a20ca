"""Solves a distillation at one size, or searches the smallest size that certifies."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from bayesdd.certificate.verdict import certificate_of
from bayesdd.data.certificate import Certificate
from bayesdd.data.distilled import Distilled
from bayesdd.distillation.first_stage import Run, first_stage, held_out_half_variance
from bayesdd.distillation.rounds import Solution, crowded, matched, polished, refined
from bayesdd.objectives import half_variance
from bayesdd.objectives.sorts import Matching, sort_of

OWN = 500_009  # keeps the seeds of certificates made here apart from those that users give to certify
ATTEMPTS = 3  # from other real rows, while the rows' posterior has a region of its own that the full one lacks
OTHER = 104_729  # between the seeds of attempts
ELSEWHERE = 4.0  # times the tolerance: a certificate's KL from which the rows' mass is taken to lie elsewhere


class Result(NamedTuple):
    """A solution and its certificate."""

    solution: Solution
    certificate: Certificate


def solved(run: Run, size: int, init: Distilled | None = None) -> Result:
    """The best solution at one size, and its certificate.

    Few rows may agree with the full posterior wherever it has mass and yet have most of their own elsewhere: weighted
    points on one line, which a small noise explains. Such a set is made anew from other real rows.
    """
    found = _once(run, size, init)
    for turn in range(1, ATTEMPTS):
        if found.certificate.ok or not _elsewhere(run, found):
            break
        other = _once(replace(run, seed=run.seed + OTHER * turn), size, None)
        if other.certificate.ok or other.certificate.kl_reverse < found.certificate.kl_reverse:
            found = other
    return found


def _elsewhere(run: Run, found: Result) -> bool:
    """Whether the rows agree with the full posterior at its own draws, but not at theirs."""
    if sort_of(run.objective) is Matching or not run.reference.trusted:
        return False
    near = held_out_half_variance(run, found.solution.problem, found.solution.vector)
    return near <= run.limit and found.certificate.kl_reverse > ELSEWHERE * run.limit


def _once(run: Run, size: int, init: Distilled | None) -> Result:
    """The best solution from one lot of starting rows, and its certificate.

    Where rows that match second or third order are within a tenth of the tolerance on held-out particles, and the
    certificate agrees, that is all. Else fixed particles follow, or where rows have more unknowns than there are
    particles the closed form of the cubic; where these bring them there, or can bring no more and the rows are within
    the tolerance, the certificate is asked. Else, and where it is not ok, on-policy rounds follow.
    """
    if sort_of(run.objective) is Matching:
        return _judged(run, matched(run, size, init))
    start = first_stage(run, size, init)
    found = start if start.score <= run.aim else polished(run, start)
    last = found is start or crowded(run, found.problem)  # rounds would bring next to nothing
    done = found.score <= run.aim or (last and found.score <= run.limit)
    if done and run.objective is half_variance and run.reference.trusted:
        result = _judged(run, Solution(found.problem, found.vector))
        if result.certificate.ok:
            return result
    return _judged(run, refined(run, Solution(found.problem, found.vector)))


def smallest(run: Run, init: Distilled | None = None) -> Result:
    """The smallest size that certifies, by doubling and then bisection; each size starts from its neighbour's rows."""
    most = run.reference.target.student.size
    size = min(most, run.reference.bound.smallest_size(run.limit))
    low, warm = size - 1, init
    good = solved(run, size, warm)
    while not good.certificate.ok and size < most:
        low, warm = size, _rows(good)
        size = min(most, 2 * size)
        good = solved(run, size, warm)
    while size - low > 1:
        middle = (low + size) // 2
        tried = solved(run, middle, _rows(good))
        if tried.certificate.ok:
            size, good = middle, tried
        else:
            low = middle
    return good


def _rows(result: Result) -> Distilled:
    return result.solution.problem.distilled(result.solution.vector, {})


def _judged(run: Run, solution: Solution) -> Result:
    """With the certificate, from fresh draws."""
    run.say("certificate")
    target, density = run.reference.target, solution.problem.density(solution.vector)
    seed = OWN + run.seed
    return Result(solution, certificate_of(target, density, run.limit, seed, solution.draws, target.laplace))
