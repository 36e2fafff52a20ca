r"""Rows whose students predict what the target predicts: gradients through the students' own fits.

At the mode :math:`\theta^*(U)` of a student on the rows U the gradient of its J (``students``) vanishes, so that

.. math:: \frac{dL}{dU} = -\frac{\partial}{\partial U} \left( v' \nabla_\theta J \right), \qquad
          A v = \nabla_\theta L

with A the Gauss-Newton matrix; exact for models that are linear in their latents. For networks the exact Hessian would
cost 25 times as much and bring no more, because a network's fit to weighted rows lies in a flat curved valley in which
Newton's method is slow too: either way the fits stay a few steps behind the moving rows. The rows therefore move by
small steps (Adam), at most a share of the present error, and go back where the students no longer fit them.

Several students are fitted at once. Every tenth step one of them begins anew from a draw of its prior, so that the rows
serve any student and not only those that were trained along with them. With the interval score, whose rows are sharp,
all students begin anew at each evaluation, and rows move by a tenth of the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.distillation.problem import Problem
from bayesdd.networks.calibration import rescaling
from bayesdd.networks.purpose import Purpose
from bayesdd.networks.regression import Regression
from bayesdd.networks.students import Fits, GaussNewton, climb, from_scratch

SCRATCH, WARM = 100, 3  # Levenberg-Marquardt steps of a new student, and of one that follows its rows
JUDGED = 400  # steps of new students whose loss judges rows
SHARE, LARGEST = 0.3, 0.01  # Adam's step: a share of the least relative error so far, and its upper limit
SCORED_SHARE = 0.03  # the share with another loss: students cannot follow sharp rows that move fast
LOST = 1.5  # times the least loss, at which rows go back to the best ones and steps are halved
LAST = 0.02  # share of the first step at which the cosine schedule ends
LOOK = 192  # purpose inputs at which a loss other than the error is evaluated
CHECK, CALIBRATE = 10, 50  # steps between evaluations of the error, and between common scalings of the weights
RENEW = 50  # steps between evaluations of another loss, each with new students

Tie = Callable[[Columns], Columns]
Loss = Callable[[Regression, Tensor, Columns, Tensor, Purpose], Tensor]


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
    loss: Loss | None = None,
    points: int = 256,
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
        tie: Applied to the rows before students are fitted to them, for outcomes that are a function of the inputs;
            weights then keep their ratios.
        loss: Of students' modes on rows of these precisions, ``(S, P)`` -> ``(S,)``: the logarithm of something in the
            outcome's units, differentiable in modes, rows and precisions. None: the predictions' error; since it does
            not depend on spreads, the weights are scaled for those now and then. Another loss moves the weights by
            steps of their own, and rows are judged only by students that begin anew at each evaluation.
        points: Purpose inputs a step.
    """
    generator = torch.Generator().manual_seed(seed)
    spread = float(purpose.mean.std())
    vector = problem.start.clone().requires_grad_(True)
    adam = torch.optim.Adam([vector], lr=0.0)
    scored, minded = loss is not None, loss or log_error
    share, look, scratch = (SCORED_SHARE, RENEW, JUDGED) if scored else (SHARE, CHECK, SCRATCH)
    every = purpose.some(torch.arange(0, len(purpose.mean), max(1, len(purpose.mean) // LOOK) if scored else 1))

    def stored(at: Tensor) -> tuple[Columns, Tensor]:
        rows, weight = problem.stored(at)
        return (rows if tie is None else tie(rows)), weight / regression.noise**2

    def fitted(fits: Fits, count: int) -> Fits:
        with torch.no_grad():
            return climb(regression, *stored(vector), fits, count)

    def begun(count: int, step: int) -> Fits:
        with torch.no_grad():
            return from_scratch(regression, *stored(vector), count, seed + 1009 * step, scratch)

    def middle(fits: Fits) -> float:
        with torch.no_grad():
            return math.exp(float(minded(regression, fits.latents, *stored(vector), every).median()))

    def rescale(fits: Fits) -> None:
        with torch.no_grad():
            vector.data[-weights(problem) :] += rescaling(regression, fits, *stored(vector), purpose)

    fits = begun(students, 0)
    least, kept, pace = middle(fits), (vector.detach().clone(), fits), 1.0
    for step in range(steps):
        if step and step % look == 0:
            if scored:
                fits = begun(students, step)
            now = middle(fits)
            if now < least:
                least, kept = now, (vector.detach().clone(), fits)
            elif now > LOST * least:
                vector.data, fits, pace = kept[0].clone(), kept[1], pace / 2
                adam = torch.optim.Adam([vector], lr=0.0)
            say(f"step {step} of {steps}: predictions off by {least / spread:.3g} of the outcome's spread")
        if not scored and step % CALIBRATE == 0:
            rescale(fits)
        if not scored and step and step % restart == 0:
            fits = _placed(fits, begun(1, step), (step // restart) % students)
        fits = fitted(fits, WARM)
        some = purpose.some(torch.randint(len(purpose.mean), (min(points, len(purpose.mean)),), generator=generator))
        theta = fits.latents.clone().requires_grad_(True)
        # Logarithms, so that one student in a poor mode does not decide how all rows move.
        value = minded(regression, theta, *stored(vector), some).mean()
        upward, direct = torch.autograd.grad(value, (theta, vector), allow_unused=True)
        cooling = LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * step / steps))
        adam.param_groups[0]["lr"] = pace * cooling * min(LARGEST, share * least / spread)
        vector.grad = implicit_gradient(regression, lambda: stored(vector), vector, fits.latents, upward)
        if direct is not None:
            vector.grad += direct
        if tie is not None:
            vector.grad[-weights(problem) :] = 0.0
        before = vector.detach()[-weights(problem) :].clone()
        adam.step()
        if scored:
            # Weights may move faster than rows.
            longer = pace * cooling * LARGEST / adam.param_groups[0]["lr"]
            vector.data[-weights(problem) :] = before + longer * (vector.detach()[-weights(problem) :] - before)
    fits = begun(students, steps) if scored else fitted(fits, SCRATCH)
    if middle(fits) > least:
        vector.data, fits = kept
    if not scored:
        rescale(fits)
    return vector.detach()


def implicit_gradient(
    regression: Regression,
    stored: Callable[[], tuple[Columns, Tensor]],
    vector: Tensor,
    theta: Tensor,
    upward: Tensor,
) -> Tensor:
    """Gradient, in the vector ``(n,)``, of a loss whose gradient at the students' modes is known.

    ``stored`` gives rows and precisions, differentiable in the vector; at the modes ``theta`` ``(S, P)`` the loss has
    the gradient ``upward`` ``(S, P)``.
    """
    rows, precision = stored()
    mean, slopes = regression.jacobian(theta.detach(), rows)
    with torch.no_grad():
        model = GaussNewton(slopes.detach(), precision.detach(), regression.prior(theta)[2])
        direction = model.solve(upward)
    along = (slopes @ direction[..., None])[..., 0]
    (found,) = torch.autograd.grad(-(precision * (mean - rows[regression.outcome]) * along).sum(), vector)
    return found


def weights(problem: Problem) -> int:
    """Parameters of a vector that are log weights."""
    return 1 if problem.equal_weights else problem.coordinates.size


def _placed(fits: Fits, one: Fits, at: int) -> Fits:
    place = torch.tensor([at])
    return Fits(*(every.index_copy(0, place, new) for every, new in zip(fits, one, strict=True)))


def log_error(regression: Regression, theta: Tensor, rows: Columns, precision: Tensor, purpose: Purpose) -> Tensor:
    """Log of the root mean squared error of predictions, the target's own variance added to it, ``(S,)``."""
    off = regression.mean(theta, purpose.inputs) - purpose.mean
    return 0.5 * ((off**2).mean(1) + purpose.sd.square().mean()).log()
