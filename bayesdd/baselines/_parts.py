"""What several published methods share: a subset as a distilled set, log-likelihood vectors, draws by Laplace fits."""

from __future__ import annotations

import warnings

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


def checked(task: Task, size: int) -> int:
    """The size, if a subset of the rows can have it.

    Raises:
        ValueError: It is not between 1 and the number of rows.

    Warns:
        CertificateWarning: No M rows can come close: some directions that the data inform stay at the prior.
    """
    if len(next(iter(task.data.values()))) < task.size:
        raise Refusal(
            f"baselines need all rows in memory, but {task.name} reads its {task.size:,} rows from disk: give the task "
            "fewer rows, or use distill()."
        )
    if not 1 <= size <= task.size:
        raise Refusal(f"a baseline needs a size between 1 and the {task.size} rows of {task.name}, got {size}.")
    if size < task.dim and (line := _bound(task, size)):
        warnings.warn(line, CertificateWarning, stacklevel=3)
    return size


def _bound(task: Task, size: int) -> str:
    target = Target([task], task, "cpu", 0)
    gaussian = target.gaussian()
    return "" if gaussian is None else Bound.of(SecondOrder.of(gaussian, target), target).warning(size, TOLERANCE)


def subset(task: Task, picked: Tensor, weight: Tensor, seed: int, method: str) -> Distilled:
    """Real rows with weights as a distilled set; rows whose weight is not positive are left out.

    Args:
        task: The task.
        picked: Row numbers, ``(M,)``.
        weight: Their weights, ``(M,)``.
        seed: Seed, for the provenance.
        method: Name of the method, for the provenance.

    Raises:
        ValueError: No weight is positive.
    """
    return weighted_rows(task, rows_at(task, picked), weight, seed, method)


def weighted_rows(task: Task, rows: Columns, weight: Tensor, seed: int, method: str) -> Distilled:
    """Rows with weights as a distilled set, see :func:`subset`."""
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
        provenance=provenance_of(task, [task], seed, int(kept.sum()), objective=method),
    )


def rows_at(task: Task, picked: Tensor) -> Columns:
    """The real rows of these numbers."""
    return {name: column[picked] for name, column in task.data.items()}


def full_gaussian(task: Task, seed: int, method: str) -> Gaussian:
    """Laplace fit of the full posterior.

    Args:
        task: The task.
        seed: Seed of the search for the mode.
        method: Name of the method that asks, for the message.

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

    Their inner products over S estimate the covariances of the rows' log-likelihoods under whatever posterior the draws
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
