r"""Edges of a template learned from complete, weighted rows: the network of the best score, exactly.

Edges respect time: from the slice before and from static variables to a slice, and without a circle within a slice.
The first slice shares a variable's parents within the slice, so that its family of the first slice is scored with its
family of later slices. Only parents within a slice can close a circle. Hence, for every variable v and set C of such
candidates,

.. math:: \mathrm{best}(v, C) = \max_{I \subseteq C} \, \max_E \,
          \{\mathrm{initial}(v \mid I) + \mathrm{later}(v \mid I, E)\},

E free among the slice before (and static variables, which enter both terms), and the best network by dynamic
programming over sets of variables: its last one in order takes the best parents among the others. Cost: the scores of
all sets of at most ``max_parents`` + 1 of 2 V + V_s nodes, then 2^V V steps.

Source: Silander & Myllymaki, "A simple approach for finding the globally optimal Bayesian network structure", UAI 2006.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from models.dbn.columns import columns
from models.dbn.scores import Sample, Score, bge

if TYPE_CHECKING:
    from models.dbn.structure import Node
    from models.dbn.template import Template

NODES = 24  # 2^24 sets are a table of 128 MB


class Recovered(NamedTuple):
    """Edges found against true ones: shares of the found that are true, and of the true that are found."""

    precision: float
    recall: float


def learn(template: Template, data: Any, weight: Any = None, *, score: Score = bge, max_parents: int = 4) -> Template:
    """A template with the edges of the best score; all else is the given template's, whose edges are not looked at.

    Args:
        template: Names, static variables, states and priors.
        data: Complete rows: ``x`` (rows, T, V) and, with static variables, ``static`` (rows, V_s).
        weight: Weights of the rows ``(rows,)``, one each if left out. Their sum is the size of the sample.
        score: ``bge`` or ``bic`` for linear-Gaussian variables, ``bdeu`` or ``bic`` for categorical ones.
        max_parents: Most parents of a variable, those of the slice before and static ones included.

    Raises:
        ValueError: Entries are missing, or there are too many variables for an exact search.
    """
    (_, of_static), (_, of_first), (nodes, of_later) = _blocks(template, data, weight)
    later, first = _table(of_later, score, max_parents), _table(of_first, score, max_parents)
    sets, within = _masks(len(nodes), max_parents), len(first) - 1

    def gain(v: int, parents: Tensor) -> Tensor:
        inner = parents & within
        return later[parents | 1 << v] - later[parents] + first[inner | 1 << v] - first[inner]

    found = [(nodes[u], nodes[v]) for u, v in _edges(gain, sets, len(template.variables))]
    intra = [(parent, child) for (parent, lag), (child, _) in found if not lag]
    inter = [(parent, child) for (parent, lag), (child, _) in found if lag]
    if template.static:
        table = _table(of_static, score, max_parents)
        sets, names = _masks(len(template.static), max_parents), template.static
        edges = _edges(lambda v, parents: table[parents | 1 << v] - table[parents], sets, len(names))
        intra = [(names[u], names[v]) for u, v in edges] + intra
    return replace(template, intra=tuple(intra), inter=tuple(inter))


def total(template: Template, data: Any, weight: Any = None, *, score: Score = bge) -> float:
    """Score of a template's own edges, nats; arguments as for :func:`learn`."""
    structure, found = template.structure, 0.0
    groups = (structure.static, structure.initial, structure.transition)
    for (nodes, sample), families in zip(_blocks(template, data, weight), groups, strict=True):
        for family in families if len(sample.values) else ():
            parents = [nodes.index(node) for node in family.parents]
            for sign, chosen in ((1, [*parents, nodes.index((family.variable, 0))]), (-1, parents)):
                found += sign * float(score(sample, torch.tensor([chosen], dtype=torch.int64)))
    return found


def recovered(found: Template, true: Template) -> Recovered:
    """Directed edges of both kinds, found against true; NaN where there is none to count."""
    kinds = [{*(("intra", *e) for e in t.intra), *(("inter", *e) for e in t.inter)} for t in (found, true)]
    hits = len(kinds[0] & kinds[1])
    return Recovered(*(hits / len(edges) if edges else float("nan") for edges in kinds))


def _blocks(template: Template, data: Any, weight: Any) -> list[tuple[list[Node], Sample]]:
    """Nodes and their values: static ones; first slices and static values; later ones, static values, slices before."""
    x, static = columns(template, data)
    count, fixed = len(template.variables), len(template.static)
    if bool(x.isnan().any() or static.isnan().any()):
        raise ValueError("learn() needs complete rows, and some entries are NaN: distil or complete them first.")
    if 2 * count + fixed > NODES:
        raise ValueError(
            f"learn() searches exactly among at most {NODES} nodes, two for each variable and one for each static one, "
            f"got {2 * count + fixed}: leave variables out."
        )
    # The order of nodes is that of the bits of a set.
    nodes: list[Node] = [(name, 0) for name in (*template.variables, *template.static)]
    nodes += [(name, 1) for name in template.variables]
    weight = torch.ones(len(x), dtype=torch.float64) * (1.0 if weight is None else torch.as_tensor(weight))
    steps = x.shape[1] - 1
    later = torch.cat([x[:, 1:], static[:, None].expand(-1, steps, -1), x[:, :-1]], 2).flatten(0, 1)

    def block(chosen: list[Node], values: Tensor, weights: Tensor) -> tuple[list[Node], Sample]:
        return chosen, Sample(values, weights, tuple(template.states[name] for name, _ in chosen if template.states))

    return [
        block(nodes[count : count + fixed], static, weight),
        block(nodes[: count + fixed], torch.cat([x[:, 0], static], 1), weight),
        block(nodes, later, weight.repeat_interleave(steps)),
    ]


def _table(sample: Sample, score: Score, max_parents: int) -> Tensor:
    """The function of sets that the score is made of, at bit masks of at most ``max_parents`` + 1 nodes."""
    nodes = sample.values.shape[1]
    table = torch.zeros(1 << nodes, dtype=torch.float64)
    if len(sample.values):  # sequences of one slice have no later ones
        for size in range(min(max_parents + 1, nodes) + 1):
            sets = torch.tensor(list(itertools.combinations(range(nodes), size)), dtype=torch.int64)
            table[(1 << sets).sum(1)] = score(sample, sets).double()
    return table


def _masks(nodes: int, most: int) -> Tensor:
    """Bit masks of all sets of at most ``most`` nodes, small sets first."""
    sets = (c for size in range(min(most, nodes) + 1) for c in itertools.combinations(range(nodes), size))
    return torch.tensor([sum(1 << place for place in chosen) for chosen in sets])


def _edges(gain: Callable[[int, Tensor], Tensor], sets: Tensor, count: int) -> list[tuple[int, int]]:
    """Edges (parent, child), as places, of the best network over the first ``count`` nodes; others are parents only.

    Args:
        gain: A variable and bit masks of its parents -> score of its family.
        sets: Bit masks of all sets that may be parents.
        count: Number of variables.
    """
    gains, parents = [], []
    for v in range(count):
        allowed = sets[sets >> v & 1 == 0]
        best, chosen = _best(gain(v, allowed), allowed, count)
        gains.append(best)
        parents.append(chosen)
    masks = [int(parents[v][before]) for v, before in enumerate(_network(gains))]
    return [(u, v) for v, mask in enumerate(masks) for u in range(mask.bit_length()) if mask >> u & 1]


def _best(total: Tensor, sets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """For every set C of the first ``count`` nodes: the best total of parents within C, and these parents."""
    inner = sets & ((1 << count) - 1)
    gain = torch.full((1 << count,), -torch.inf, dtype=total.dtype).scatter_reduce(0, inner, total, "amax")
    hit = (total == gain[inner]).nonzero()[:, 0].flip(0)  # the last one written, the smallest set, stays
    chosen = torch.zeros(1 << count, dtype=torch.int64)
    for place in hit.tolist():
        chosen[inner[place]] = sets[place]
    every = torch.arange(1 << count)
    for bit in range(count):
        upper = every[every >> bit & 1 == 1]
        lower = upper ^ (1 << bit)
        better = gain[lower] >= gain[upper]
        gain[upper] = torch.where(better, gain[lower], gain[upper])
        chosen[upper] = torch.where(better, chosen[lower], chosen[upper])
    return gain, chosen


def _network(gains: list[Tensor]) -> list[int]:
    """For every variable the set of those before it in the best order."""
    count, tables = len(gains), [gain.tolist() for gain in gains]
    best, last = [0.0] * (1 << count), [0] * (1 << count)
    for chosen in range(1, 1 << count):
        options = [v for v in range(count) if chosen >> v & 1]
        scores = [best[chosen ^ 1 << v] + tables[v][chosen ^ 1 << v] for v in options]
        best[chosen] = max(scores)
        last[chosen] = options[scores.index(best[chosen])]
    before, chosen = [0] * count, (1 << count) - 1
    while chosen:
        v = last[chosen]
        chosen ^= 1 << v
        before[v] = chosen
    return before
