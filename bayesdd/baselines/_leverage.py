r"""Importance sampling by sensitivities: rows whose log-likelihood varies most under the posterior are likeliest.

With v_n the log-likelihood of row n at draws of the full posterior, centred over the draws,

.. math:: p_n = (1 - \epsilon) \frac{\|v_n\|}{\sum_k \|v_k\|} + \frac{\epsilon}{N}, \qquad
          w_n = \frac{\#\{n \text{ drawn}\}}{M p_n} \quad \text{in } M \text{ draws with replacement.}

Unbiased for the full log-likelihood at any fixed parameter. The norms minimise the expected squared error of the sum of
vectors; the uniform part keeps every weight below N / (epsilon M). Of the exponential families' leverage scores, and of
the logistic sensitivities of Huggins et al., it is the version that needs no formula for the model. Still importance
sampling: the KL falls like N / M. Cost: one Laplace fit, N x S log-likelihoods, 8 N S bytes.

Source: Huggins, Campbell & Broderick, "Coresets for scalable Bayesian logistic regression", NeurIPS 2016 (sampling by
sensitivities); Campbell & Broderick, "Automated scalable Bayesian inference via Hilbert coresets", JMLR 2019 (norms).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.baselines._parts import checked, hilbert_vectors, weighted_rows
from bayesdd.data.distilled import Distilled
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.task import Task


def leverage(
    task: Task, size: int, *, seed: int, particles: int = 500, draws: Tensor | None = None, mix: float = 0.1
) -> Distilled:
    """Rows sampled by the norms of their centred log-likelihood vectors.

    Args:
        size: Number M of draws with replacement; rows drawn repeatedly are merged, so that fewer may come back.
        mix: The share epsilon of uniform sampling, in [0, 1]; 0 is as published in 2019.

    Returns:
        The weighted rows, total weight N in expectation.

    Raises:
        ValueError: ``mix`` is not in [0, 1].
    """
    size = checked(task, size)
    if not 0 <= mix <= 1:
        raise Refusal(f"leverage needs a share `mix` of uniform sampling between 0 and 1, got {mix}.")
    generator = torch.Generator().manual_seed(seed)
    probability = sensitivities(hilbert_vectors(task, particles, draws, generator, seed, "leverage"), mix)
    counts = torch.bincount(torch.multinomial(probability, size, True, generator=generator), minlength=task.size)
    return weighted_rows(task, task.data, counts / (size * probability), seed, "leverage")


def sensitivities(vectors: Tensor, mix: float) -> Tensor:
    """Sampling probabilities of rows, ``(N,)``, from their vectors ``(N, S)``: norms mixed with uniform ones."""
    norm = vectors.norm(dim=1)
    if not bool(norm.any()):
        mix = 1.0
    probability: Tensor = (1 - mix) * norm / norm.sum().clamp_min(1e-300) + mix / len(norm)
    return probability
