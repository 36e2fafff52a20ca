"""Stratified rows: every label, fixed entry and pattern of missing entries has its share, with weights N_h / M_h.

A stratum h of N_h rows gets about sqrt(N_h) of the M rows (``distillation.stratified``), drawn without replacement, each standing
for N_h / M_h rows: unbiased like uniform rows, but rare labels are there from the start. With more strata than rows,
strata are drawn by their sizes and the weights scaled to the sum N. It is also where ``distill`` starts from.
Source: Neyman, "On the two different aspects of the representative method", J. Royal Stat. Soc. 1934 (stratification;
the root in place of N_h times the spread of a stratum, which nobody knows for all parameters at once).
"""

from __future__ import annotations

import torch

from bayesdd.baselines._parts import checked, subset
from bayesdd.data.distilled import Distilled
from bayesdd.distillation.stratified import choose
from bayesdd.task.task import Task


def stratified(task: Task, size: int, *, seed: int) -> Distilled:
    """Rows stratified over labels, fixed columns and patterns of missing entries.

    Args:
        task: The task.
        size: Number M of rows; fewer come back where a stratum has fewer rows than its share.
        seed: Seed.

    Returns:
        The weighted rows, total weight N, without a certificate.

    Raises:
        ValueError: ``size`` is not between 1 and N.
    """
    size = checked(task, size)
    picked, share = choose(task.data, task.column_kinds, size, torch.Generator().manual_seed(seed))
    weight = torch.zeros(task.size, dtype=torch.float64).index_add(0, picked, share)
    return subset(task, torch.arange(task.size), weight, seed, "stratified")
