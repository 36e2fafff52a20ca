r"""Rows whose students predict what the target predicts: gradients through the students' own fits.

At the mode :math:`\theta^*(U)` of a student on the rows U the gradient of its J (``networks``) vanishes, so that

.. math:: \frac{dL}{dU} = -\frac{\partial}{\partial U} \left( v' \nabla_\theta J \right), \qquad
          A v = \nabla_\theta L

with A the Gauss-Newton matrix: the gradient for a student that is linear near its mode, exact for linear models. For
networks the exact Hessian in its place cost 25 times as much a step and served no better, because fits of a network to
weighted rows lie in flat curved valleys in which Newton's method itself crawls; unconverged fits, a few steps behind
their moving rows, are what both have to live with. For the same reason the rows move by small steps (Adam), no larger
than a share of the present error: steps of a fixed size that led from 0.22 to 0.04 with 20 rows made 50 rows, which
start at 0.014, a hundred times worse. Where the students lose their rows all the same, rows go back.

Several students are fitted at once, and one after the other is begun anew from a draw of its prior, so that rows serve
any student, not those that they grew up with. Every tenth step: at every thirtieth 2,000 steps of 20 rows ended at an
error of 0.12 that 600 had brought to 0.04; at every tenth 1,500 ended at 0.03.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.matching import networks
from bayesdd.matching.networks import Fits, GaussNewton
from bayesdd.matching.purpose import Purpose
from bayesdd.problem import Problem
from bayesdd.pyro_model import Columns
from bayesdd.regression import Regression

SCRATCH, WARM = 100, 3  # Levenberg-Marquardt steps of a new student, and of one that follows its rows
POINTS = 256  # purpose inputs a step
SHARE, LARGEST = 0.3, 0.01  # Adam's step: this share of the least relative error so far, at most that
LOST = 1.5  # times the least error at which rows go back to where it was, and their steps are halved
LAST = 0.02  # of the cosine by which steps shrink
CHECK, CALIBRATE = 10, 50  # steps between looks at the error, and between common scalings of the weights
SCALES = torch.linspace(-3, 3, 41, dtype=torch.float64)
SPREAD_POINTS = 192
RELUCTANCE = 0.02  # in held probability, a unit of log weight: few rows leave a spread that no weight narrows
LEVEL, Z = 0.9, 1.6448536269514722  # of the intervals that are to hold the target's predictive

Tie = Callable[[Columns], Columns]


def search(
    regression: Regression,
    problem: Problem,
    purpose: Purpose,
    seed: int,
    say: Callable[[str], None],
    *,
    students: int,
    steps: int,
    restart: int,
    tie: Tie | None = None,
) -> Tensor:
    """The vector of rows and weights that serves the students best.

    Args:
        regression: The student.
        problem: Rows and weights to start from.
        purpose: What is to be predicted.
        seed: Seed of the students and of the purpose inputs of each step.
        say: Where progress goes.
        students: Students fitted at once.
        steps: Steps of the rows.
        restart: Steps after which the next student begins anew.
        tie: What becomes of the rows before students see them (labels that another function gives); weights then keep
            their ratios.
    """
    generator = torch.Generator().manual_seed(seed)
    spread = float(purpose.mean.std())
    vector = problem.start.clone().requires_grad_(True)
    adam = torch.optim.Adam([vector], lr=0.0)

    def stored(at: Tensor) -> tuple[Columns, Tensor]:
        rows, weight = problem.stored(at)
        return (rows if tie is None else tie(rows)), weight / regression.noise**2

    def fitted(fits: Fits, count: int) -> Fits:
        with torch.no_grad():
            return networks.climb(regression, *stored(vector), fits, count)

    fits = fitted(networks.start(regression, students, seed), SCRATCH)
    least, kept, pace = median_error(regression, fits, purpose), (vector.detach().clone(), fits), 1.0
    for step in range(steps):
        if step and step % CHECK == 0:
            now = median_error(regression, fits, purpose)
            if now < least:
                least, kept = now, (vector.detach().clone(), fits)
            elif now > LOST * least:
                vector.data, fits, pace = kept[0].clone(), kept[1], pace / 2
                adam = torch.optim.Adam([vector], lr=0.0)
            say(f"step {step} of {steps}: predictions off by {least / spread:.3g} of the outcome's spread")
        if step % CALIBRATE == 0:
            _calibrate(regression, problem, vector, stored, fits, purpose)
        if step and step % restart == 0:
            fresh = fitted(networks.start(regression, 1, seed + 1009 * step), SCRATCH)
            fits = _placed(fits, fresh, (step // restart) % students)
        fits = fitted(fits, WARM)
        some = purpose.some(torch.randint(len(purpose.mean), (min(POINTS, len(purpose.mean)),), generator=generator))
        theta = fits.latents.clone().requires_grad_(True)
        error = ((regression.mean(theta, some.inputs) - some.mean) ** 2).mean(1)
        # By its logarithm: a student in a poor mode must not move all rows.
        loss = 0.5 * (error + some.sd.square().mean()).log().mean()
        (upward,) = torch.autograd.grad(loss, theta)
        cooling = LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * step / steps))
        adam.param_groups[0]["lr"] = pace * cooling * min(LARGEST, SHARE * least / spread)
        vector.grad = implicit_gradient(regression, lambda: stored(vector), vector, fits.latents, upward)
        if tie is not None:
            vector.grad[-_weights(problem) :] = 0.0
        adam.step()
    fits = fitted(fits, SCRATCH)
    if median_error(regression, fits, purpose) > least:
        vector.data, fits = kept
    _calibrate(regression, problem, vector, stored, fits, purpose)
    return vector.detach()


def implicit_gradient(
    regression: Regression,
    stored: Callable[[], tuple[Columns, Tensor]],
    vector: Tensor,
    theta: Tensor,
    upward: Tensor,
) -> Tensor:
    """Gradient in the vector of a loss whose gradient at the students' modes is known.

    Args:
        regression: The student.
        stored: Rows and precisions, differentiable in the vector.
        vector: ``(n,)``, requires gradients.
        theta: Modes ``(S, P)``.
        upward: Gradient of the loss there, ``(S, P)``.
    """
    rows, precision = stored()
    mean, slopes = regression.jacobian(theta.detach(), rows)
    with torch.no_grad():
        model = GaussNewton(slopes.detach(), precision.detach(), regression.prior(theta)[2])
        direction = model.solve(upward)
    along = (slopes @ direction[..., None])[..., 0]
    (found,) = torch.autograd.grad(-(precision * (mean - rows[regression.outcome]) * along).sum(), vector)
    return found


def _weights(problem: Problem) -> int:
    return 1 if problem.equal_weights else problem.coordinates.size


def _placed(fits: Fits, one: Fits, at: int) -> Fits:
    place = torch.tensor([at])
    pairs = ((fits.latents, one.latents), (fits.damping, one.damping), (fits.left, one.left))
    return Fits(*(every.index_copy(0, place, new) for every, new in pairs))


def median_error(regression: Regression, fits: Fits, purpose: Purpose) -> float:
    """Root mean squared error of predictions of the middle student."""
    with torch.no_grad():
        off = regression.mean(fits.latents, purpose.inputs) - purpose.mean
    return float((off**2).mean(1).median().sqrt())


def _calibrate(
    regression: Regression,
    problem: Problem,
    vector: Tensor,
    stored: Callable[[Tensor], tuple[Columns, Tensor]],
    fits: Fits,
    purpose: Purpose,
) -> None:
    """Scales all weights so that the middle student's 90% intervals hold the target's predictive with 90% on average.

    A student with the right means then has the right spread, and one that is off says so. (The scale of least KL to
    the target's predictive left intervals that held 100%: it minds the few inputs where errors are largest.)
    """
    step = max(1, len(purpose.mean) // SPREAD_POINTS)
    some = purpose.some(torch.arange(0, len(purpose.mean), step))
    with torch.no_grad():
        mean, there = regression.jacobian(fits.latents, some.inputs)
        rows, precision = stored(vector)
        slopes, ridge = regression.jacobian(fits.latents, rows)[1], regression.prior(fits.latents)[2]
        off, held = mean - some.mean, []
        for scale in SCALES.exp():
            half = Z * GaussNewton(slopes, precision * scale, ridge).variance(there).clamp_min(1e-24).sqrt()
            inside = torch.special.ndtr((half - off) / some.sd) - torch.special.ndtr((-half - off) / some.sd)
            held.append(inside.mean(1).median())
        vector.data[-_weights(problem) :] += SCALES[
            int(((torch.stack(held) - LEVEL).abs() + RELUCTANCE * SCALES.abs()).argmin())
        ]
