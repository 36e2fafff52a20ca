r"""Students: regression networks fitted to weighted rows, several at once, and their predictions.

The mode minimises :math:`J(\theta) = -\log p(\theta) + \tfrac12 \sum_m p_m (m(x_m; \theta) - y_m)^2` with precisions
:math:`p_m = w_m / \mathrm{noise}^2`. Near it, with J the Jacobian of the means and L the prior's curvature,

.. math:: A = L + J' \mathrm{diag}(p) J, \qquad \mathrm{Var}[m(x)] = j(x)' A^{-1} j(x)

(linearised Laplace). With fewer rows than latents everything is solved through the M x M matrix
:math:`J L^{-1} J' + \mathrm{diag}(1/p)`: for 50 rows and 353 weights a step of four students takes a millisecond.

Sources: Marquardt, J. SIAM 1963; Immer, Korzepa & Bauer, "Improving predictions of Bayesian neural nets via local
linearization", AISTATS 2021.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.networks.regression import Regression
from bayesdd.numerics.levenberg_marquardt import Quadratic, damped_steps

DAMPING, LEAST_DAMPING, MOST_DAMPING = 1.0, 1e-8, 1e8
DOWN, UP, FAILED = 0.33, 2.0, 4.0
ROUNDING = 1e-13  # of the value: it hides smaller gains, and a step is taken there
JITTER = 1e-12  # of each diagonal element: of the largest, it drowns rows that are less sharp by six orders
SOFT = 0.1  # of the outcomes' spread: the sd that sharp rows have at the start of training
SHARPER = (0.125, 0.125, 0.25, 0.5)  # shares of a new student's steps at each precision, from there to the rows' own


class Fits(NamedTuple):
    """Several students fitted to the same rows.

    Attributes:
        latents: Unconstrained, ``(S, P)``.
        damping: Levenberg-Marquardt damping of each, ``(S,)``, for a warm start.
        left: What is left to gain by the Gauss-Newton model, nats, ``(S,)``.
    """

    latents: Tensor
    damping: Tensor
    left: Tensor


class GaussNewton:
    """A = diag(ridge) + J' diag(p) J for S students: solves and quadratic forms, differentiable in all three.

    Args:
        slopes: J, ``(S, M, P)``.
        precision: p, ``(M,)``.
        ridge: ``(S, P)``, positive.
    """

    def __init__(self, slopes: Tensor, precision: Tensor, ridge: Tensor) -> None:
        self.ridge, self.precision, self.dual = ridge, precision, slopes.shape[1] < slopes.shape[2]
        if self.dual:
            self.scaled = slopes / ridge[:, None]
            matrix = self.scaled @ slopes.mT + (1 / precision).diag()
        else:
            self.scaled = slopes * precision[:, None]
            matrix = self.scaled.mT @ slopes + torch.diag_embed(ridge)
        self.lower = torch.linalg.cholesky(matrix + JITTER * torch.diag_embed(matrix.diagonal(dim1=1, dim2=2)))

    def solve(self, right: Tensor) -> Tensor:
        """A^-1 times ``(S, P)``."""
        return self.solves(right[..., None])[..., 0]

    def solves(self, right: Tensor) -> Tensor:
        """A^-1 times every column of ``(S, P, K)``."""
        if not self.dual:
            plain: Tensor = torch.cholesky_solve(right, self.lower)
            return plain
        inner = torch.cholesky_solve(self.scaled @ right, self.lower)
        found: Tensor = right / self.ridge[..., None] - self.scaled.mT @ inner
        return found

    def variance(self, slopes: Tensor) -> Tensor:
        """Quadratic forms j' A^-1 j, one for every row j of ``(S, K, P)``: ``(S, K)``."""
        if not self.dual:
            plain: Tensor = (torch.linalg.solve_triangular(self.lower, slopes.mT, upper=False) ** 2).sum(1)
            return plain
        across = torch.linalg.solve_triangular(self.lower, self.scaled @ slopes.mT, upper=False)
        found: Tensor = (slopes**2 / self.ridge[:, None]).sum(2) - (across**2).sum(1)
        return found

    def regression(self, values: Tensor) -> Tensor:
        """A^-1 J' diag(p) times values ``(S, M)`` of the rows, ``(S, P)``: ridge regression."""
        return self.regressions(values[..., None])[..., 0]

    def regressions(self, values: Tensor) -> Tensor:
        """The same of every column of ``(S, M, K)``: ``(S, P, K)``.

        With fewer rows than latents no large numbers are subtracted, as they are in ``solves(J' diag(p) values)``.
        """
        if not self.dual:
            return self.solves(self.scaled.mT @ values)
        found: Tensor = self.scaled.mT @ torch.cholesky_solve(values, self.lower)
        return found

    def unexplained(self, values: Tensor) -> Tensor:
        """What the regression leaves of values ``(S, M, K)``, without such a subtraction either."""
        if not self.dual:
            found: Tensor = values - (self.scaled / self.precision[:, None]) @ self.regressions(values)
            return found
        return torch.cholesky_solve(values, self.lower) / self.precision[:, None]

    def free(self) -> Tensor:
        """One less the leverage of every row, 1 - p j' A^-1 j: ``(S, M)``, from 0 to 1."""
        if not self.dual:
            return (1 - self.variance(self.scaled) / self.precision).clamp(0, 1)
        return (torch.cholesky_inverse(self.lower).diagonal(dim1=1, dim2=2) / self.precision).clamp(0, 1)


def start(regression: Regression, count: int, seed: int) -> Fits:
    """Students at draws from their prior."""
    draws = regression.task.prior_draws(count, seed)
    return Fits(draws, draws.new_full((count,), DAMPING), draws.new_full((count,), torch.inf))


def from_scratch(regression: Regression, rows: Columns, precision: Tensor, count: int, seed: int, steps: int) -> Fits:
    """Students from draws of their prior to modes, on rows that are softened at the start of training.

    A continuation in precision: on sharp rows a student first finds a rough function and improves slowly from there. No
    row is softened beyond a tenth of the outcomes' spread: with softer rows students sink to the constant that their
    prior prefers, and stay there. ``precision`` is that of each row's outcome, ``(M,)``; ``steps`` are each
    student's.
    """
    fits = start(regression, count, seed)
    outcome = rows[regression.outcome]
    soft = (SOFT * outcome.std()) ** -2 if len(outcome) > 1 else precision.new_tensor(torch.inf)
    if not bool((precision > soft).any()):
        return climb(regression, rows, precision, fits, steps)
    for at, part in enumerate(SHARPER):
        gone = at / (len(SHARPER) - 1)
        now = torch.where(precision > soft, soft ** (1 - gone) * precision**gone, precision)
        fresh = fits._replace(damping=torch.full_like(fits.damping, DAMPING))
        fits = climb(regression, rows, now, fresh, math.ceil(part * steps))
    return fits


def climb(regression: Regression, rows: Columns, precision: Tensor, fits: Fits, steps: int) -> Fits:
    """Levenberg-Marquardt steps of all students; a step that does not descend is refused and damped more.

    ``precision`` is that of each row's outcome, ``(M,)``. Further steps of a student that has converged change nothing.
    """
    outcome = rows[regression.outcome]

    def function(theta: Tensor) -> tuple[Tensor, ...]:
        """J, its gradient, the Jacobian of the means, the prior's curvature."""
        mean, slopes = regression.jacobian(theta, rows)
        log_prior, prior_slope, ridge = regression.prior(theta)
        residual = mean - outcome
        value = 0.5 * (precision * residual**2).sum(1) - log_prior
        return value, ((precision * residual)[:, None] @ slopes)[:, 0] - prior_slope, slopes, ridge

    def quadratic(_: Tensor, values: Sequence[Tensor]) -> Quadratic:
        _, gradient, slopes, ridge = values

        def step(damping: Tensor) -> Tensor:
            return -GaussNewton(slopes, precision, ridge * (1 + damping)[:, None]).solve(gradient)

        def square(steps: Tensor) -> Tensor:
            along = (slopes @ steps[..., None])[..., 0]
            return (precision * along**2).sum(1) + (ridge * steps**2).sum(1)

        return Quadratic(gradient, step, square)

    def renewed(damping: Tensor, better: Tensor, share: Tensor) -> Tensor:
        taken = torch.where(share > 0.7, DOWN, torch.where(share > 0.3, 1.0, UP))
        return (damping * torch.where(better, taken, FAILED)).clamp(LEAST_DAMPING, MOST_DAMPING)

    with torch.no_grad():
        begun = damped_steps(function, quadratic, fits.latents, fits.damping, renewed, rounding=ROUNDING)
        for state in itertools.islice(begun, 1, steps + 1):
            fits = Fits(state.point, state.damping, state.left)
    return fits


def spread(
    regression: Regression, theta: Tensor, rows: Columns, precision: Tensor, at: Columns
) -> tuple[Tensor, Tensor]:
    """Predictive mean and sd of the mean function by linearised Laplace, ``(S, K)`` each; differentiable in all."""
    mean, slopes = regression.jacobian(theta, at)
    own = regression.jacobian(theta, rows)[1]
    ridge = regression.prior(theta)[2]
    variance = GaussNewton(own, precision, ridge).variance(slopes)
    return mean, variance.clamp_min(1e-24).sqrt()
