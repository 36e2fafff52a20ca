"""What published methods share: rows as distilled sets, log-likelihood vectors, draws from Laplace fits, Adam."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.data.certificate import TOLERANCE, CertificateWarning
from bayesdd.data.columns import Columns
from bayesdd.data.distilled import Distilled
from bayesdd.density.density import Density
from bayesdd.inference.mode import fit
from bayesdd.numerics.gaussian import Gaussian
from bayesdd.numerics.refusal import Refusal
from bayesdd.target.bound import Bound
from bayesdd.target.second_order import SecondOrder
from bayesdd.target.target import Target
from bayesdd.task.provenance import provenance_of
from bayesdd.task.task import Task

NEWTON_STEPS = 8
NEAR = 0.01  # length of the last Newton step, in standard deviations


def checked(task: Task, size: int) -> int:
    """The size, if a subset of the rows can have it.

    Raises:
        ValueError: It is not between 1 and the number of rows.

    Warns:
        CertificateWarning: No M rows can come close: some directions that the data inform stay at the prior.
    """
    task.refuse_weights("a baseline")
    if len(next(iter(task.data.values()))) < task.size:
        raise Refusal(
            f"baselines need all rows in memory, but {task.name} reads its {task.size:,} rows from disk: give the task "
            "fewer rows, or use distill()."
        )
    if not 1 <= size <= task.size:
        raise Refusal(f"a baseline needs a size between 1 and the {task.size} rows of {task.name}, got {size}.")
    if size < task.dim:
        target = Target([task], task, "cpu", 0)
        if (gaussian := target.gaussian()) is not None:
            line = Bound.of(SecondOrder.of(gaussian, target), target).warning(size, TOLERANCE)
            if line:
                warnings.warn(line, CertificateWarning, stacklevel=3)
    return size


def weighted_rows(task: Task, rows: Columns, weight: Tensor, seed: int, method: str) -> Distilled:
    """Rows with weights ``(M,)`` as a distilled set; rows whose weight is not positive are left out.

    Raises:
        ValueError: No weight is positive.
    """
    kept = weight > 0
    if not bool(kept.any()):
        raise Refusal(f"{method}: no row got a positive weight on {task.name}; take more rows or other settings.")
    rows = {name: column[kept] for name, column in rows.items()}
    for name, classes in task.soft.items():
        rows[name] = torch.nn.functional.one_hot(rows[name].long(), classes).double()
    return Distilled(
        rows,
        weight[kept],
        soft=task.soft,
        labels=task.labels,
        provenance=provenance_of(task, [task], seed, int(kept.sum()), objective=method),
    )


def rows_at(task: Task, picked: Tensor) -> Columns:
    """The real rows of these numbers."""
    return {name: column[picked] for name, column in task.data.items()}


def full_gaussian(task: Task, seed: int, method: str) -> Gaussian:
    """Laplace fit of the full posterior, for a method that messages name.

    Raises:
        ValueError: There is none.
    """
    gaussian = fit(Density([(task, task.data, None)]), seed=seed)
    if gaussian is None:
        raise Refusal(
            f"{method} draws from the Laplace fit of the full posterior, and {task.name} has none (no mode with "
            "positive-definite curvature): give it draws=..., or use distill()."
        )
    return gaussian


def vectors(task: Task, draws: Tensor, picked: Tensor | None = None) -> Tensor:
    """Log-likelihood of rows at draws, centred over the draws, nats: ``(rows, S)``.

    Their inner products over S estimate the covariances of the rows' log-likelihoods under the posterior that the draws
    come from. Source: Campbell & Broderick, "Automated scalable Bayesian inference via Hilbert coresets", JMLR 2019.
    """
    rows = task.data if picked is None else rows_at(task, picked)
    count = len(next(iter(rows.values())))
    found = torch.empty(count, len(draws), dtype=torch.float64)
    block = max(1, 2**20 // len(draws))
    with torch.no_grad():
        for start in range(0, count, block):
            piece = {name: column[start : start + block] for name, column in rows.items()}
            found[start : start + block] = task.log_likelihood(piece, draws).T
    return found.sub_(found.mean(1, keepdim=True))


def hilbert_vectors(
    task: Task, particles: int, draws: Tensor | None, generator: torch.Generator, seed: int, method: str
) -> Tensor:
    """Log-likelihood vectors ``(N, S)`` at own draws, or at draws of the full posterior's Laplace fit.

    Raises:
        ValueError: Fewer than two draws, draws of another shape than ``(S, P)``, or no Laplace fit.
    """
    if draws is None and particles < 2:
        raise Refusal(f"{method} needs at least 2 particles (a log-likelihood is centred over them), got {particles}.")
    if draws is not None and (draws.dim() != 2 or draws.shape[1] != task.dim or len(draws) < 2):
        raise Refusal(
            f"{method} needs draws of shape (S, {task.dim}), S at least 2, in the unconstrained space of {task.name}, "
            f"got {tuple(draws.shape)}."
        )
    return vectors(
        task, full_gaussian(task, seed, method).draw(particles, generator) if draws is None else draws.double()
    )


class CoresetPosterior:
    """Draws from the posterior of weighted rows, by Laplace fits that each start from the last one's mean.

    Without any positive weight the posterior is the prior, and draws are the model's own, the same at every call.
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
    """Laplace fit by Newton's method alone, to a hundredth of a standard deviation; None if it does not get there.

    From the last weights' mean it takes a third of the time of a fit to full digits.
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
