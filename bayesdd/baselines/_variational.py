"""What the methods share that descend a reverse KL: draws of a coreset's posterior by Laplace fits, and Adam."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.density.density import Density
from bayesdd.inference.mode import fit
from bayesdd.numerics.gaussian import Gaussian
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.task import Task

NEWTON_STEPS = 8
NEAR = 0.01  # length of the last Newton step, in standard deviations


class CoresetPosterior:
    """Draws from the posterior of weighted rows, by Laplace fits that each start from the last one's mean.

    Without any positive weight the posterior is the prior, and draws are the model's own (the same at every call: 1 ms
    each).
    """

    def __init__(self, task: Task, seed: int, method: str) -> None:
        self.task, self.seed, self.method = task, seed, method
        self.gaussian: Gaussian | None = None
        self.prior = torch.zeros(0, task.dim, dtype=torch.float64)

    def draws(self, rows: Columns, weight: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Unconstrained draws, ``(count, P)``.

        Raises:
            ValueError: There is no Laplace fit.
        """
        if not bool((weight > 0).any()):
            if len(self.prior) != count:
                self.prior = self.task.prior_draws(count, self.seed)
            return self.prior
        density = Density([(self.task, rows, weight)])
        found = None if self.gaussian is None else near(density, self.gaussian.mean)
        if found is None:
            found = fit(density, seed=self.seed, start=None if self.gaussian is None else self.gaussian.mean)
        if found is None:
            raise Refusal(
                f"{self.method} draws from Laplace fits, but the posterior of its rows on {self.task.name} has none "
                "(few rows can leave a noise scale without a lower bound): take more rows, or distill()."
            )
        self.gaussian = found
        return found.draw(count, generator)


def near(density: Density, point: Tensor) -> Gaussian | None:
    """Laplace fit by Newton's method alone, to a hundredth of a standard deviation; None if it is not that near.

    From the last weights' mean: 2 ms, against 6 ms to full digits and 12 to 22 ms with a search first (M = 50, P = 11).
    """
    for _ in range(NEWTON_STEPS):
        _, slope, hessian = density.likelihood_derivatives(point[None])
        _, prior_slope, prior_hessian = density.prior_derivatives(point[None])
        lower, failed = torch.linalg.cholesky_ex(-(hessian[0] + prior_hessian[0]))
        if int(failed) or not bool(torch.isfinite(lower).all()):
            return None
        white = torch.linalg.solve_triangular(lower, (slope[0] + prior_slope[0])[:, None], upper=False)
        point = point + torch.linalg.solve_triangular(lower.T, white, upper=True)[:, 0]
        if float((white**2).sum()) < NEAR**2:
            inverse = torch.linalg.solve_triangular(lower, torch.eye(len(point), dtype=point.dtype), upper=False)
            return Gaussian(point, torch.linalg.qr(inverse)[1].T)
    return None


def drawn(rows: int, count: int, generator: torch.Generator) -> Tensor:
    """Row numbers with replacement, ``(min(count, rows),)``, as the authors draw their batches."""
    numbers: Tensor = torch.randint(rows, (min(count, rows),), generator=generator)
    return numbers


def adam(start: Tensor, gradient: Callable[[Tensor], Tensor], *, steps: int, step: float, weights: int) -> Tensor:
    """Adam (0.9, 0.999) with steps ``step / (1 + t)``; the first ``weights`` coordinates are projected to be >= 0."""
    point, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for t in range(steps):
        slope = gradient(point)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        scale = (second / (1 - 0.999 ** (t + 1))).sqrt() + 1e-8
        point = point - step / (1 + t) * first / (1 - 0.9 ** (t + 1)) / scale
        point[:weights].clamp_(min=0.0)
    return point
