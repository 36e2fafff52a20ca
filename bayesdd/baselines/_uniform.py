"""Uniform rows: M of the N rows without replacement, each with weight N / M. The simplest baseline of all.

Its log-likelihood is unbiased for the full one at any fixed parameter; the KL falls like N / M.

Source: Campbell, "General bounds on the quality of Bayesian coresets", NeurIPS 2024 (why it cannot do better).
"""

from __future__ import annotations

import torch

from bayesdd.baselines._parts import checked, subset
from bayesdd.data.distilled import Distilled
from bayesdd.task.task import Task


def uniform(task: Task, size: int, *, seed: int) -> Distilled:
    """Uniform rows with weight N / M.

    Args:
        task: The task.
        size: Number M of rows.
        seed: Seed.

    Returns:
        The weighted rows, without a certificate.

    Raises:
        ValueError: ``size`` is not between 1 and N.
    """
    size = checked(task, size)
    picked = torch.randperm(task.size, generator=torch.Generator().manual_seed(seed))[:size]
    return subset(task, picked, torch.full((size,), task.size / size, dtype=torch.float64), seed, "uniform")
