r"""Function-space matching: students of the rows predict what the target predicts, over a declared purpose.

With m and s the mean and spread of the regression function that a student of the rows U predicts (mode from a draw of
its prior, linearised Laplace around it), m_D and s_D those of the target's posterior, over inputs x of the purpose:

.. math:: \text{first} \; \min_U \; \mathrm{E}_{\text{students}} \log \mathrm{E}_x (m(x) - m_D(x))^2, \qquad
          \text{then} \; \min_U \; \mathrm{E}_{\text{students}} \log \mathrm{E}_x S_{90}(m, s; m_D, s_D)(x)

with S the score of 90% intervals (``calibration``): rows and weights first for the mean, then for narrow intervals that
cover what they should. Where the means agree the spread becomes the target's, elsewhere it covers their difference; the
second stage gives up a little of the error for that. For networks, whose weights are not identified and have no usable
Gaussian: a few rows cannot determine them, but they can determine what networks predict. The result says nothing about
the posterior of theta: its certificate is of predictions.

Cost of a step: a few Levenberg-Marquardt steps of four students on M rows; 10 ms for 337 weights and 50 rows, three
times that in the second stage, which has half as many.

Source: Burt, Ober, Garriga-Alonso & van der Wilk, "Understanding variational inference in function-space", AABI 2020
(why predictions, and at declared inputs); Lorraine, Vicol & Duvenaud, AISTATS 2020 (implicit gradients).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.distillation.problem import Problem
from bayesdd.networks import judging, row_search, students
from bayesdd.networks.calibration import interval_score, settled
from bayesdd.networks.judging import HELD, JUDGES, Residuals, Terms, certificate
from bayesdd.networks.purpose import Label, Purpose, purpose_of
from bayesdd.networks.regression import Regression
from bayesdd.numerics.refusal import Refusal
from bayesdd.objectives.sorts import Solver, standalone
from bayesdd.target.target import Target

STUDENTS, STEPS, RESTART = 4, 1000, 10
START_SHARE = 0.02  # least sd of a starting row, of the outcome's spread: fits to sharper rows take hundreds of steps
JUDGE_SEED = 5003  # students that choose between results must not be those of the certificate
LAST, SCORED = 0.5, 64  # second stage: steps, as a share of the first's, and purpose inputs of each
TOLERANCE = 0.3  # error in sds, and log ratio of spreads


@standalone
def function_space(
    target: Target,
    seed: int,
    say: Callable[[str], None],
    *,
    purpose: Any,
    draws: Any = None,
    predictive: tuple[Tensor, Tensor] | None = None,
    label: Label | None = None,
    error: float | None = None,
    held: float = HELD,
    unit: float | Tensor | None = None,
    held_out: Any = None,
    residuals: Residuals | None = None,
    doubt: str = "",
    students: int = STUDENTS,
    steps: int = STEPS,
    restart: int = RESTART,
) -> Solver:
    """Objective of ``distill``: mean and spread of the students' predictive over a purpose.

    Args:
        target: The target and its student, a regression with known noise.
        seed: Seed.
        say: Where progress goes.
        purpose: Inputs drawn from the declared distribution: the student's columns without its outcome, in whatever
            form ``Task`` takes; a few hundred rows. They must lie where the kinds of the student's columns allow.
        draws: Draws of the target's posterior, by any inference: site -> ``(S, *shape)``, or what ``bayesdd.sample``
            returned; sites of the target alone are not used. Without draws and ``predictive``: linearised Laplace
            approximations with the Gauss-Newton matrix around the best of several modes.
        predictive: Instead of draws, mean and sd of the regression function at the purpose's rows, ``(K,)`` each.
        label: With ``predictive``, the mean at any inputs, in torch: the student's columns without its outcome,
            ``(M, ...)``, -> ``(M,)``. Rows then keep the target's own outcomes as they move, which serves better.
        error: Judge in the outcome's own terms: what the error of the students' means must stay within, as a share of
            the range of the target's means over the purpose (0.01 for 1 %), and at one input in ten within twice that.
            The search is the same. None: ``tolerance=`` judges, in predictive sds, which asks for much where the target
            is nearly certain.
        held: With ``error``: 90 % intervals must hold 90 % of the target's predictive, give or take this.
        unit: What ``error`` is in, if not that range: 1.0 for the outcome's own units, or one for each purpose row.
        held_out: Rows with their outcomes that the target has not seen: where 90 % intervals of its predictive and the
            student's noise hold fewer of them than chance explains, no certificate of it is ok.
        residuals: What students leave of equations that they should satisfy (``pinn`` gives it), for the certificate.
        doubt: What speaks against the target itself, one line: no certificate is ok then.
        students: Students fitted at once.
        steps: Steps of the rows.
        restart: Steps after which the next student begins anew.

    Returns:
        How to search for the rows and to certify them.

    Raises:
        ValueError: The student is no such regression; purpose, draws or settings do not fit.
    """
    if min(students, steps, restart) < 1:
        raise Refusal(
            f"function_space needs students, steps and restart of at least 1, got {students}, {steps} and {restart}."
        )
    regression = Regression(target.student, "function_space")
    terms = Terms(error, held, unit, residuals, doubt)
    wanted = purpose_of(regression, target, purpose, draws, predictive, label, seed, held_out)
    terms = dataclasses.replace(terms, doubt="; ".join(filter(None, (doubt, wanted.doubt))))
    say(f"purpose: {len(wanted.mean)} inputs, spread {float(wanted.sd.mean()):.3g}")
    pool = wanted.labelled(regression)
    return Solver(
        pool,
        functools.partial(starting_rows, regression, wanted, pool.data, seed),
        functools.partial(
            solved, regression, wanted, seed=seed, say=say, students=students, steps=steps, restart=restart
        ),
        functools.partial(certificate, regression, wanted, terms=terms),
        TOLERANCE if error is None else None,
    )


def starting_rows(
    regression: Regression, purpose: Purpose, pool: Columns, seed: int, size: int
) -> tuple[Columns, Tensor]:
    """Purpose inputs that fill their space (each the farthest from those before), labelled by the target."""
    parts = [column.double().reshape(len(column), -1) for column in purpose.inputs.values()]
    points = torch.cat(parts, 1)
    points = (points - points.mean(0)) / points.std(0).clamp_min(1e-12)
    picked = [int(torch.randint(len(points), (1,), generator=torch.Generator().manual_seed(seed)))]
    distance = torch.full((len(points),), torch.inf, dtype=torch.float64)
    while len(picked) < size:
        distance = torch.minimum(distance, ((points - points[picked[-1]]) ** 2).sum(1))
        picked.append(int(distance.argmax()))
    rows = {name: column[picked] for name, column in pool.items()}
    return rows, starting_weight(regression, purpose).expand(size).clone()


def starting_weight(regression: Regression, purpose: Purpose) -> Tensor:
    """Weight of one row: its outcome as sharp as the target's predictive, or as sharp as students can fit."""
    sharp = START_SHARE * purpose.mean.std()
    return regression.noise**2 / purpose.sd.square().mean().clamp_min(float(sharp**2))


def solved(
    regression: Regression, purpose: Purpose, problem: Problem, *, seed: int, steps: int, **settings: Any
) -> Tensor:
    """Rows moved for their students' error in several ways; the best of them then moved for the interval score.

    Rows move with the target's own outcomes (``label``), from the starting rows and from the purpose's first rows;
    without a label freely. None of these ways is always the best, so all are judged by the interval score of sixteen
    new students; with eight, or by the error, the choice depends on the students.
    """

    def score(vector: Tensor) -> float:
        with torch.no_grad():
            rows, weight = problem.stored(vector)
            precision = weight / regression.noise**2
            fits = students.from_scratch(
                regression, rows, precision, 2 * JUDGES, seed + JUDGE_SEED, judging.JUDGE_STEPS
            )
            return float(interval_score(regression, fits.latents, rows, precision, purpose).median())

    def searched(start: Problem, count: int, tie: row_search.Tie | None = None) -> Tensor:
        vector = row_search.search(regression, start, purpose, seed, steps=count, tie=tie, **settings)
        if tie is None:
            return vector
        with torch.no_grad():
            rows, weight = start.stored(vector)
            return _again(problem, tie(rows), weight).start

    def scaled(vector: Tensor, count: int) -> Tensor:
        rows, weight = problem.stored(vector)
        found = vector.clone()
        # By other students than those that choose: rows were chosen because those covered much.
        found[len(vector) - row_search.weights(problem) :] += settled(
            regression, rows, weight, purpose, count=count, seed=seed + 2 * JUDGE_SEED, steps=judging.JUDGE_STEPS
        )
        return found

    found = [searched(problem, 0)]
    if not problem.coordinates.dim or purpose.label is None:
        found.append(searched(problem, steps))
    if problem.coordinates.dim:
        size = problem.coordinates.size
        first = purpose.some(torch.arange(size) % len(purpose.mean))
        other = _again(problem, {**first.inputs, regression.outcome: first.mean}, problem.stored(problem.start)[1])
        found.append(searched(other, 0))
        if purpose.label is not None:
            tie = functools.partial(_labelled, regression.outcome, purpose.label)
            found += [searched(start, steps, tie) for start in (problem, other)]
    best = scaled(min(found, key=score), STUDENTS)
    last = row_search.search(
        regression,
        dataclasses.replace(problem, start=best),
        purpose,
        seed,
        steps=math.ceil(LAST * steps),
        loss=interval_score,
        points=SCORED,
        **settings,
    )
    return min((best, scaled(last, 2 * JUDGES)), key=score)


def _labelled(outcome: str, label: Label, rows: Columns) -> Columns:
    """Rows with the target's outcomes at their inputs."""
    return {**rows, outcome: label({name: column for name, column in rows.items() if name != outcome})}


def _again(problem: Problem, rows: Columns, weight: Tensor) -> Problem:
    """The same problem from other rows, with vectors of the same layout."""
    return Problem.from_rows(
        problem.student, rows, weight, weight.device, equal_weights=problem.equal_weights, move_rows=True
    )
