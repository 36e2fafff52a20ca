r"""Kernel inducing points: synthetic rows from which kernel ridge regression predicts the outcomes of the real rows.

.. math:: \min_U \tfrac12 \| y_D - K_{DU} (K_{UU} + \lambda I)^{-1} y_U \|^2.

The inner problem has a closed form, so nothing is unrolled. It predicts means under the kernel and uses neither the
model nor its noise, and so it serves regressions of one outcome only; weights do not enter the loss. Cost per step: a
kernel between a batch of real rows and the synthetic ones, and one Cholesky factor of size M.

Ours and not the original's: whitened covariates, outcomes in units of their own spread, Adam in whitened coordinates of
the rows, weights N / M for the model's posterior. ``kernel=arc_cosine`` is the original's kernel of an infinitely wide
network, of one hidden ReLU layer.

Source: Nguyen, Chen & Lee, "Dataset meta-learning from kernel ridge-regression", ICLR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.baselines._moving import movable, moved, whitening
from bayesdd.data.distilled import Distilled
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.task import Task

Kernel = Callable[[Tensor, Tensor], Tensor]


def rbf_linear(a: Tensor, b: Tensor) -> Tensor:
    """Gaussian kernel of length the root of D, plus the linear one with a constant: ``(A, D), (B, D) -> (A, B)``."""
    dim = a.shape[1]
    inner = a @ b.T
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * inner
    return torch.exp(-0.5 * square.clamp_min(0.0) / dim) + (1 + inner) / (1 + dim)


def arc_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Kernel of an infinitely wide layer of ReLUs with biases: ``(A, D), (B, D) -> (A, B)``.

    Source: Cho & Saul, "Kernel methods for deep learning", NeurIPS 2009.
    """
    dim = a.shape[1]
    long_a, long_b = (((1 + (x**2).sum(1)) / (1 + dim)).sqrt() for x in (a, b))
    length = long_a[:, None] * long_b
    # At 1 itself the arc cosine has no derivative; the product's is that of a maximum, zero.
    cosine = ((1 + a @ b.T) / (1 + dim) / length).clamp(-1 + 1e-12, 1 - 1e-12)
    return length / math.pi * ((1 - cosine**2).sqrt() + (math.pi - cosine.acos()) * cosine)


def kernel_ridge(
    task: Task,
    size: int,
    *,
    seed: int,
    iterations: int = 500,
    rate: float = 0.05,
    kernel: Kernel = rbf_linear,
    ridge: float = 1e-6,
    batch: int | None = 2048,
    hold_labels: bool = False,
) -> Distilled:
    """Rows from which kernel ridge regression predicts the outcomes of the real rows.

    Args:
        task: The task: one observed column ``(N,)``, at least one covariate that can move.
        kernel: Kernel of whitened covariates.
        ridge: Lambda, as a share of the mean of the kernel's diagonal at the synthetic rows.

    Raises:
        ValueError: The task has no such columns.
    """
    outcome, covariates = _columns(task)
    problem, _, _ = movable(task, size, seed, hold=hold_labels)
    white, standard = whitening(task.data, covariates), _standardised(task, outcome)
    inputs, targets = white(task.data), standard(task.data[outcome])
    generator = torch.Generator().manual_seed(seed)

    def loss(vector: Tensor) -> Tensor:
        rows, _ = problem.stored(vector)
        at = slice(None) if batch is None else torch.randint(task.size, (batch,), generator=generator)
        found = ridge_prediction(kernel, white(rows), standard(rows[outcome]), inputs[at], ridge)
        return 0.5 * ((targets[at] - found) ** 2).sum()

    return moved("kernel_ridge", problem, loss, seed, iterations, rate, learn_weights=False)


def ridge_prediction(kernel: Kernel, inputs: Tensor, targets: Tensor, new: Tensor, ridge: float) -> Tensor:
    """Kernel ridge regression in closed form: ``(B, K)`` at new inputs ``(B, D)``.

    Inputs ``(M, D)``, targets ``(M, K)``; ``ridge`` is lambda as a share of the mean of the kernel's diagonal.
    """
    gram = kernel(inputs, inputs)
    noise = ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    root = torch.linalg.cholesky(0.5 * (gram + gram.T) + noise)
    return kernel(new, inputs) @ torch.cholesky_solve(targets, root)


def _columns(task: Task) -> tuple[str, list[str]]:
    """The observed column and the covariates."""
    observed = [site.column for site in task.structure.observed]
    covariates = [
        name
        for name, column in task.data.items()
        if name not in observed and task.column_kinds[name].to_free is not None and _varies(column)
    ]
    outcome = observed[0] if len(observed) == 1 else None
    if outcome is None or task.data[outcome].dim() != 1 or bool(task.data[outcome].isnan().any()) or not covariates:
        raise Refusal(
            f"kernel_ridge needs one observed column (rows,) without gaps and a covariate that can move, but "
            f"{task.name} observes {observed} and has covariates {covariates}: take a method that uses the model."
        )
    return outcome, covariates


def _varies(column: Tensor) -> bool:
    return bool((column != column[:1]).any())


def _standardised(task: Task, outcome: str) -> Callable[[Tensor], Tensor]:
    """The map from outcomes to ``(rows, K)``, mean 0 and variance 1 over the real rows; K > 1 for classes only."""
    column, kind = task.data[outcome], task.column_kinds[outcome]
    categorical = task.structure.observed[0].distribution == "Categorical"
    classes = kind.classes or (int(column.max()) + 1 if categorical else 0)

    def wide(values: Tensor) -> Tensor:
        if classes and values.dim() == 1:
            return torch.nn.functional.one_hot(values.long(), classes).double()
        return values.double().reshape(len(values), -1)

    real = wide(column)
    mean, spread = real.mean(0), real.std(0, correction=0)
    return lambda values: (wide(values) - mean) / torch.where(spread > 0, spread, 1.0)
