r"""Edges of a template learned from complete, weighted rows: the network of the best score, exactly.

Edges respect time: from the slice before and from static variables to a slice, and without a circle within a slice.
The first slice shares a variable's parents within the slice, so that its family of the first slice is scored with its
family of later slices:

.. math:: \mathrm{score}(v \mid I, E) = \mathrm{initial}(v \mid I) + \mathrm{later}(v \mid I, E)

with parents I of the slice and E of the slice before (static variables enter both terms). ``initial`` edges of the
template stay as they are, and first slices then say nothing about the others. Cost: the scores of all sets of at most
``max_parents`` + 1 of 2 V + V_s nodes, and the search over orders (``orders``).
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayesdd.dbn.learning.orders import Candidates, Pairs, best, masks
from bayesdd.dbn.learning.scores import Sample, Score, bge
from bayesdd.dbn.template.columns import columns, whole
from bayesdd.dbn.template.structure import Node
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal

NODES = 24  # 2^24 sets are a table of 128 MB


class Recovered(NamedTuple):
    """Edges found against true ones: shares of the found that are true, and of the true that are found."""

    precision: float
    recall: float


def learn(template: Template, data: Any, weight: Any = None, *, score: Score = bge, max_parents: int = 4) -> Template:
    """A template with the edges of the best score; all else, ``initial`` edges too, is the given template's.

    Args:
        template: Names, static variables, states and priors.
        data: Complete rows: ``x`` (rows, T, V) and, with static variables, ``static`` (rows, V_s).
        weight: Weights of the rows ``(rows,)``, one each if left out. Their sum is the size of the sample.
        score: ``bge`` or ``bic`` for linear-Gaussian variables, ``bdeu`` or ``bic`` for categorical ones.
        max_parents: Most parents of a variable, those of the slice before and static ones included.

    Raises:
        Refusal: Entries are missing, or there are too many variables for an exact search.
    """
    problems = searches(template, _blocks(template, data, weight), score, max_parents)
    return with_edges(template, [best(problem) for problem in problems])


def searches(template: Template, blocks: list[Sample], score: Score, max_parents: int) -> list[Candidates]:
    """The networks to choose from: that of a slice, and that of the static variables if there are any.

    The blocks are the values of static variables, first slices and later ones, in the order of :func:`nodes`.
    """
    of_static, of_first, of_later = blocks
    later, first = _table(of_later, score, max_parents), _table(of_first, score, max_parents)
    if template.initial is not None:
        first = torch.zeros_like(first)
    within = len(first) - 1

    def family(v: int, parents: Tensor) -> Tensor:
        inner = parents & within
        return later[parents | 1 << v] - later[parents] + first[inner | 1 << v] - first[inner]

    found = [Candidates(family, masks(len(nodes(template)[2]), max_parents), behind(template))]
    if count := len(template.static):
        table = _table(of_static, score, max_parents)
        alone = Candidates(lambda v, parents: table[parents | 1 << v] - table[parents], masks(count, max_parents), [])
        found.append(alone._replace(after=[0] * count))
    return found


def behind(template: Template) -> list[int]:
    """For every variable the mask of those that edges of the first slice put behind it."""
    names, after = template.variables, [0] * len(template.variables)
    for parent, child in template.initial or ():
        if parent in names:
            after[names.index(parent)] |= 1 << names.index(child)
    return after


def with_edges(template: Template, found: list[Pairs]) -> Template:
    """The template with the edges of the networks that :func:`searches` asked for."""
    of_static, _, of_later = nodes(template)
    pairs = [(of_later[u], of_later[v]) for u, v in found[0]]
    intra = [(parent, child) for (parent, lag), (child, _) in pairs if not lag]
    inter = [(parent, child) for (parent, lag), (child, _) in pairs if lag]
    fixed = [(of_static[u][0], of_static[v][0]) for u, v in found[1]] if template.static else []
    return replace(template, intra=(*fixed, *intra), inter=tuple(inter))


def nodes(template: Template) -> tuple[list[Node], list[Node], list[Node]]:
    """Nodes of the static variables, of a first slice and of a later one: their order is that of the bits of a set."""
    of_static: list[Node] = [(name, 0) for name in template.static]
    of_first: list[Node] = [(name, 0) for name in template.variables] + of_static
    return of_static, of_first, of_first + [(name, 1) for name in template.variables]


def total(template: Template, data: Any, weight: Any = None, *, score: Score = bge) -> float:
    """Score of a template's own edges, nats; arguments as for :func:`learn`."""
    found, blocks = 0.0, _blocks(template, data, weight)
    for places, sample, families in zip(nodes(template), blocks, template.structure, strict=True):
        for family in families if len(sample.values) else ():
            parents = [places.index(node) for node in family.parents]
            for sign, chosen in ((1, [*parents, places.index((family.variable, 0))]), (-1, parents)):
                found += sign * float(score(sample, torch.tensor([chosen], dtype=torch.int64)))
    return found


def recovered(found: Template, true: Template) -> Recovered:
    """Directed edges of both kinds, found against true; NaN where there is none to count."""
    kinds = [{*(("intra", *e) for e in t.intra), *(("inter", *e) for e in t.inter)} for t in (found, true)]
    hits = len(kinds[0] & kinds[1])
    return Recovered(*(hits / len(edges) if edges else float("nan") for edges in kinds))


def _blocks(template: Template, data: Any, weight: Any) -> list[Sample]:
    """Values of static variables; first slices and static values; later ones, static values, slices before."""
    x, static = columns(template, data)
    if not whole(x, static):
        raise Refusal("learn() needs complete rows, and some entries are NaN: distil or complete them first.")
    refuse_many(template)
    weight = torch.ones(len(x), dtype=torch.float64) * (1.0 if weight is None else torch.as_tensor(weight))
    steps = x.shape[1] - 1
    later = torch.cat([x[:, 1:], static[:, None].expand(-1, steps, -1), x[:, :-1]], 2).flatten(0, 1)
    values = (static, weight), (torch.cat([x[:, 0], static], 1), weight), (later, weight.repeat_interleave(steps))
    states = [tuple(template.states[name] for name, _ in some if template.states) for some in nodes(template)]
    return [Sample(*part, known) for part, known in zip(values, states, strict=True)]


def refuse_many(template: Template) -> None:
    """Refuses templates of both kinds of variables, for which no score is here, or of too many nodes."""
    if template.mixed:
        raise Refusal("edges are searched among variables of one kind: leave the categorical ones out, or the others.")
    count = len(nodes(template)[2])
    if count > NODES:
        raise Refusal(
            f"an exact search is among at most {NODES} nodes, two for each variable and one for each static one, got "
            f"{count}: leave variables out."
        )


def _table(sample: Sample, score: Score, max_parents: int) -> Tensor:
    """The function of sets that the score is made of, at bit masks of at most ``max_parents`` + 1 nodes."""
    nodes = sample.values.shape[1]
    table = torch.zeros(1 << nodes, dtype=torch.float64)
    if len(sample.values):  # sequences of one slice have no later ones
        for size in range(min(max_parents + 1, nodes) + 1):
            sets = torch.tensor(list(itertools.combinations(range(nodes), size)), dtype=torch.int64)
            table[(1 << sets).sum(1)] = score(sample, sets).double()
    return table
