"""Starting rows: real rows, stratified over labels, fixed columns and patterns of missing entries."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.data.strata import keys
from bayesdd.task.kinds import Kind

MOST_COUNTED = 2**16  # possible strata up to which rows are counted, not sorted
SORTED = 2**18  # rows among which members of strata are sought first
STRATIFIED = {"binary", "fixed"}
MOST_LEVELS = 8  # of a whole outcome that get strata of their own; more are grouped
GROUPED = (0.1, 0.25, 0.5, 0.75, 0.9, 0.97)  # quantiles between the groups, closer in the tail that few rows reach


def strata(columns: Columns, kinds: dict[str, Kind]) -> Tensor:
    """Number of the stratum of every row, ``(N,)``: equal labels, fixed entries, NaN patterns and sides of atoms."""
    count = len(next(iter(columns.values())))
    keys = []
    for name, column in columns.items():
        kind = kinds[name]
        flat = column.reshape(count, -1)
        if kind.name == "whole":
            keys.append(_levels(flat.nan_to_num(0.0) if column.is_floating_point() else flat))
        elif kind.classes or (kind.name in STRATIFIED and not (kind.name == "fixed" and column.is_floating_point())):
            keys.append(flat.nan_to_num(0.0).long() if column.is_floating_point() else flat)
        for element, atom in kind.atoms:
            entries = flat[:, element : element + 1]
            keys += [(entries == atom).long(), (entries > atom).long()]
        if column.is_floating_point() and bool(torch.isnan(column).any()):
            keys.append(torch.isnan(flat).long())
    return _numbered(torch.cat(keys, 1)) if keys else torch.zeros(count, dtype=torch.int64)


def _levels(outcomes: Tensor) -> Tensor:
    """Level of each outcome ``(N, K)`` among those of its element: its value, or a range of values where many occur."""
    found = []
    for outcome in outcomes.double().T:
        some = outcome[:: -(-len(outcome) // SORTED)]
        values = torch.unique(some)
        if len(values) > MOST_LEVELS:
            values = torch.unique(some.sort().values[(torch.tensor(GROUPED) * len(some)).long()])
        found.append(torch.bucketize(outcome, values))
    return torch.stack(found, 1)


def _numbered(keys: Tensor) -> Tensor:
    """Number of each row of whole numbers ``(N, K)`` among the distinct rows in order."""
    low = keys.amin(0)
    sizes = [int(size) + 1 for size in keys.amax(0) - low]
    found: Tensor
    if math.prod(sizes) >= 2**62:
        found = torch.unique(keys, dim=0, return_inverse=True)[1]
        return found
    # Where the ranges allow it each row becomes one number, which is 20 times as fast.
    number = torch.zeros(len(keys), dtype=torch.int64, device=keys.device)
    for key, size, least in zip(keys.T, sizes, low, strict=True):
        number = number * size + (key - least)
    if math.prod(sizes) <= MOST_COUNTED:
        there = torch.bincount(number, minlength=math.prod(sizes)) > 0
        return (there.cumsum(0) - 1)[number]
    found = torch.unique(number, return_inverse=True)[1]
    return found


def choose(
    columns: Columns, kinds: dict[str, Kind], size: int, generator: torch.Generator, by: str | None = None
) -> tuple[Tensor, Tensor]:
    """Starting rows and weights.

    Each stratum gets rows in proportion to the square root of its size, so that rare labels are there from the start,
    and at least one if there are enough.

    Args:
        columns: The rows to choose from.
        kinds: The columns' kinds, which say what the strata are.
        size: Number of rows.
        generator: Of the choice.
        by: A column whose values are the strata instead.

    Returns:
        Places ``(size,)`` among the rows given and weights ``(size,)`` whose sum is their number.
    """
    group = strata(columns, kinds) if by is None else torch.unique(keys(columns[by]), return_inverse=True)[1]
    counts = torch.bincount(group)
    shares = _allocate(counts, size, generator)
    order = torch.randperm(len(group), generator=generator)
    # The first rows in random order have enough members of all but rare strata, and are sorted fast.
    few = order[:SORTED]
    members_of = few[torch.argsort(group[few], stable=True)].split(
        torch.bincount(group[few], minlength=len(counts)).tolist()
    )
    picked, weight = [], []
    for stratum, (share, count) in enumerate(zip(shares.tolist(), counts.tolist(), strict=True)):
        if share:
            members = members_of[stratum]
            if len(members) < min(share, count):
                members = order[group[order] == stratum]
            picked.append(members[torch.arange(share) % count])
            weight.append(torch.full((share,), count / share, dtype=torch.float64))
    weights = torch.cat(weight)
    return torch.cat(picked), weights * (len(group) / weights.sum())


def _allocate(counts: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Rows a stratum, summing to ``size`` (largest remainders)."""
    if len(counts) > size:
        kept = torch.multinomial(counts.double(), size, replacement=False, generator=generator)
        return torch.zeros_like(counts).index_fill(0, kept, 1)
    root = counts.double().sqrt()
    ideal = (size - len(counts)) * root / root.sum()
    shares = 1 + ideal.floor().long()
    rest = size - int(shares.sum())
    if rest:
        shares[torch.argsort(ideal.floor() - ideal, stable=True)[:rest]] += 1
    return shares
