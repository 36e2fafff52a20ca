"""Stratified rows: every label, fixed entry and pattern of missing entries has its share, with weights N_h / M_h.

A stratum h of N_h rows gets a share of the M rows in proportion to sqrt(N_h), drawn without replacement, each with
weight N_h / M_h: unbiased like uniform rows, but rare labels are never missing. With more strata than rows, strata are
drawn by their sizes and the weights scaled to the sum N. ``distill`` starts from such rows.

Source: Neyman, "On the two different aspects of the representative method", J. Royal Stat. Soc. 1934 (stratification;
here the root takes the place of N_h times the spread of a stratum, which differs between parameters).
"""

from __future__ import annotations

import torch

from bayesdd.baselines._parts import checked, weighted_rows
from bayesdd.data.distilled import Distilled
from bayesdd.distillation.stratified import choose
from bayesdd.task.task import Task


def stratified(task: Task, size: int, *, seed: int) -> Distilled:
    """Rows stratified over labels, fixed columns and patterns of missing entries, total weight N.

    Fewer rows than M come back where a stratum has fewer than its share.
    """
    size = checked(task, size)
    picked, share = choose(task.data, task.column_kinds, size, torch.Generator().manual_seed(seed))
    weight = torch.zeros(task.size, dtype=torch.float64).index_add(0, picked, share)
    return weighted_rows(task, task.data, weight, seed, "stratified")
