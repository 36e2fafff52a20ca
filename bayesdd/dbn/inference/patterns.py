r"""Sufficient statistics of linear-Gaussian rows: for each pattern of missing entries, count and root of the moments.

N rows of one pattern, entries y of r, bear on a posterior through N and the second moments of (1, y) alone. Their
triangular root R, :math:`R'R = \sum_i (1, y_i)(1, y_i)'`, has at most r + 1 rows, so that whatever is done with it
costs the same for a hundred and for a million rows; fewer rows than that are their own root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.dbn.likelihood.gaussian import entries, grouped
from bayesdd.dbn.template.columns import Rows
from bayesdd.dbn.template.template import Template

BLOCK = 2**16  # rows that are folded into a root at a time


@dataclass(frozen=True, eq=False)
class Patterns:
    """Patterns, all with as many entries seen (r) and as many rows of their roots (k).

    Attributes:
        source: Number of the source ``(p,)``.
        count: Number of rows, or their weight ``(p,)``.
        at: Places of the entries seen, as in ``gaussian.entries`` ``(p, r)``.
        root: Roots of the second moments of (1, y) ``(p, k, 1 + r)``.
    """

    source: Tensor
    count: Tensor
    at: Tensor
    root: Tensor


def patterns_of(template: Template, rows: Sequence[Rows], weights: Sequence[Tensor] | None = None) -> list[Patterns]:
    """The patterns of all sources' rows, those of equal r and k together; a row of weight w counts as w rows."""
    found: dict[tuple[int, int], list[Patterns]] = {}
    for source, some in enumerate(rows):
        flat = entries(template, *some)
        weight = flat.new_ones(len(flat)) if weights is None else weights[source].double()
        for pattern in _of_source(source, flat, weight):
            found.setdefault((pattern.at.shape[1], pattern.root.shape[1]), []).append(pattern)
    return [
        Patterns(*(torch.cat([getattr(one, name) for one in some]) for name in ("source", "count", "at", "root")))
        for some in found.values()
    ]


def commonest(patterns: Sequence[Patterns], most: int) -> list[Patterns]:
    """Of every source at most so many patterns, those of most rows; of equally common ones evenly spread ones."""
    counts, sources = (torch.cat([getattr(some, name) for some in patterns]) for name in ("count", "source"))
    kept = torch.zeros(len(counts), dtype=torch.bool)
    for source in sources.unique():
        mine = (sources == source).nonzero()[:, 0]
        mine = mine[counts[mine].argsort(descending=True, stable=True)]
        step = max(1, len(mine) // most) if float(counts[mine[0]]) == 1 else 1
        kept[mine[::step][:most]] = True
    parts = zip(patterns, kept.split([len(some.count) for some in patterns]), strict=True)
    return [Patterns(some.source[at], some.count[at], some.at[at], some.root[at]) for some, at in parts if at.any()]


def _of_source(source: int, flat: Tensor, weight: Tensor) -> list[Patterns]:
    alone: dict[int, list[tuple[Tensor, Tensor]]] = {}  # r -> rows that share their pattern with no other
    found = []
    for rows, at in grouped(~flat.isnan()):
        if len(rows) == 1:
            alone.setdefault(len(at), []).append((rows, at))
        else:
            root = _root(flat, weight, rows, at)[None]
            found.append(Patterns(torch.tensor([source]), weight[rows].sum()[None], at[None], root))
    for pairs in alone.values():
        rows, at = torch.cat([rows for rows, _ in pairs]), torch.stack([at for _, at in pairs])
        root = torch.cat([flat.new_ones(len(rows), 1), flat[rows[:, None], at]], 1) * weight[rows].sqrt()[:, None]
        found.append(Patterns(torch.full((len(rows),), source), weight[rows], at, root[:, None]))
    return found


def _root(flat: Tensor, weight: Tensor, rows: Tensor, at: Tensor) -> Tensor:
    """Root of the second moments of (1, y) ``(min(rows, 1 + r), 1 + r)``, by orthogonal factors of blocks of rows."""
    root = flat.new_zeros(0, 1 + len(at))
    for some in rows.split(BLOCK):
        block = torch.cat([flat.new_ones(len(some), 1), flat[some][:, at]], 1) * weight[some].sqrt()[:, None]
        root = torch.cat([root, block])
        if len(root) > root.shape[1]:
            root = torch.linalg.qr(root, mode="r").R
    return root
