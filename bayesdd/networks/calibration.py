r"""Calibrated intervals: the interval score of students' predictive, and the common scale of the rows' weights.

A student says N(m, s^2), the target N(m_D, s_D^2). With h = 1.645 s the score of its 90% interval [m - h, m + h],

.. math:: S = \mathrm{E}_x \left[ 2 h + \tfrac{2}{0.1} \mathrm{E}_{f \sim N(m_D, s_D^2)} (|f - m| - h)_+ \right],

is proper: among all half widths it is least where the interval contains 90% of the target's predictive, on average
over the inputs. The log score is dominated by the few inputs where errors are largest, this score is not; and unlike
an error it penalises intervals that are too wide.

Weights alone change the widths little, since rows leave most directions of a network to its prior: rows must move by
this score too. The students must have converged for it, so sharp rows are softened at the start of training
(``students.from_scratch``).

Source: Gneiting & Raftery, "Strictly proper scoring rules, prediction, and estimation", JASA 2007, section 6.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesdd.data.accuracy import LEVEL, Z90
from bayesdd.data.columns import Columns
from bayesdd.networks import students
from bayesdd.networks.purpose import Purpose
from bayesdd.networks.regression import Regression
from bayesdd.networks.students import Fits, GaussNewton

SCALES = torch.linspace(-3, 3, 41, dtype=torch.float64)
SPREAD_POINTS = 192
RELUCTANCE = 0.02  # cost of a unit of log weight, in coverage: a scale that brings less is not taken
FOLLOWED = 1.0  # nats left to gain, above which students have not converged and rows are not sharpened
TRIED = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0)  # log scales at which students are fitted anew
ALIKE = 0.25  # in log score: scales within this of the best are compared by their coverage
FINE = 0.5  # range of log scales within which students are not fitted anew


def interval_score(regression: Regression, theta: Tensor, rows: Columns, precision: Tensor, purpose: Purpose) -> Tensor:
    """Log of the score over 2 * 1.645, an sd in the outcome's units, ``(S,)``; differentiable in all arguments.

    ``theta`` are the students' modes ``(S, P)`` on the rows, ``precision`` the rows' weights / noise^2, ``(M,)``.
    """
    mean, spread = students.spread(regression, theta, rows, precision, purpose.inputs)
    return scored(mean - purpose.mean, spread, purpose.sd)


def scored(off: Tensor, spread: Tensor, sd: Tensor) -> Tensor:
    """The same from errors and spreads ``(S, K)`` and the target's sds ``(K,)``."""
    half = Z90 * spread
    missed = _beyond((off - half) / sd) + _beyond((-off - half) / sd)
    found: Tensor = (half + sd * missed / (1 - LEVEL)).mean(1).div(Z90).log()
    return found


def held(off: Tensor, spread: Tensor, sd: Tensor) -> Tensor:
    """Coverage of the target's predictive by each student's 90% intervals, averaged over inputs, ``(S,)``."""
    return inside(off, spread, sd).mean(1)


def inside(off: Tensor, spread: Tensor, sd: Tensor) -> Tensor:
    """The same by input, ``(S, K)``."""
    half = Z90 * spread
    found: Tensor = torch.special.ndtr((half - off) / sd) - torch.special.ndtr((-half - off) / sd)
    return found


def rescaling(regression: Regression, fits: Fits, rows: Columns, precision: Tensor, purpose: Purpose) -> float:
    """Log of the common scale of weights at which the median student's intervals cover 90%; modes as they are.

    Nearer to 0 where a change costs more than it brings, and at most 0 where students have not converged.
    """
    step = max(1, len(purpose.mean) // SPREAD_POINTS)
    some = purpose.some(torch.arange(0, len(purpose.mean), step))
    with torch.no_grad():
        middle = _held_at(regression, fits, rows, precision, some, SCALES).median(1).values
        gap = (middle - LEVEL).abs() + RELUCTANCE * SCALES.abs()
    if float(fits.left.median()) > FOLLOWED:
        gap = gap[SCALES <= 0]
    return float(SCALES[int(gap.argmin())])


def settled(
    regression: Regression, rows: Columns, weight: Tensor, purpose: Purpose, *, count: int, seed: int, steps: int
) -> float:
    """Log of the common scale of the weights ``(M,)`` that serves new students best.

    ``count`` students are fitted at six scales, by ``steps`` Levenberg-Marquardt steps each. Among the scales whose
    interval scores are within a quarter of the best, it takes the one whose mean coverage is nearest to 90%, and then
    searches half a unit of log weight around it with the modes as they are. The mean over students and not the median:
    on sharp rows some students do not converge and cover far less.
    """
    scores, gaps, found = [], [], []
    with torch.no_grad():
        for log_scale in TRIED:
            precision = weight * math.exp(log_scale) / regression.noise**2
            own = students.from_scratch(regression, rows, precision, count, seed, steps)
            mean, spread = students.spread(regression, own.latents, rows, precision, purpose.inputs)
            off = mean - purpose.mean
            scores.append(scored(off, spread, purpose.sd).median())
            gaps.append((held(off, spread, purpose.sd).mean() - LEVEL).abs())
            found.append(own)
        score, gap = torch.stack(scores), torch.stack(gaps)
        at = int(torch.where(score <= score.min() + ALIKE, gap, torch.inf).argmin())
        fine = torch.linspace(-FINE, FINE, 21, dtype=torch.float64)
        precision = weight * math.exp(TRIED[at]) / regression.noise**2
        there = (_held_at(regression, found[at], rows, precision, purpose, fine).mean(1) - LEVEL).abs()
    # Where no weight narrows the spread, the scale stays as it is.
    best = fine[int((there + RELUCTANCE * fine.abs()).argmin())]
    return TRIED[at] + float(best)


def _held_at(
    regression: Regression, fits: Fits, rows: Columns, precision: Tensor, purpose: Purpose, log_scales: Tensor
) -> Tensor:
    """Coverage by every student at common scales of the weights ``(scales, S)``; modes as they are."""
    mean, there = regression.jacobian(fits.latents, purpose.inputs)
    slopes, ridge = regression.jacobian(fits.latents, rows)[1], regression.prior(fits.latents)[2]
    found = []
    for scale in log_scales.exp():
        spread = GaussNewton(slopes, precision * scale, ridge).variance(there).clamp_min(1e-24).sqrt()
        found.append(held(mean - purpose.mean, spread, purpose.sd))
    return torch.stack(found)


def _beyond(at: Tensor) -> Tensor:
    """E (z + at)_+ of a standard normal z."""
    found: Tensor = at * torch.special.ndtr(at) + torch.exp(-0.5 * at**2) / math.sqrt(2 * math.pi)
    return found
