"""Uniform rows: M of the N rows without replacement, each with weight N / M. The simplest baseline of all.

Its log-likelihood is unbiased for the full one at any fixed parameter; the KL falls like N / M.

Source: Campbell, "General bounds on the quality of Bayesian coresets", NeurIPS 2024 (why it cannot do better).
"""

from __future__ import annotations

import torch

from bayesdd.baselines._parts import checked, rows_at, weighted_rows
from bayesdd.data.distilled import Distilled
from bayesdd.task.task import Task


def uniform(task: Task, size: int, *, seed: int) -> Distilled:
    """Uniform rows with weight N / M."""
    size = checked(task, size)
    picked = torch.randperm(task.size, generator=torch.Generator().manual_seed(seed))[:size]
    weight = torch.full((size,), task.size / size, dtype=torch.float64)
    return weighted_rows(task, rows_at(task, picked), weight, seed, "uniform")
