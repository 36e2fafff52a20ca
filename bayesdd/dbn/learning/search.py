r"""Edges of a template learned from complete, weighted rows: the network of the best score, exactly.

Edges respect time: from the slice before and from static variables to a slice, and without a circle within a slice.
The first slice shares a variable's parents within the slice, so that its family of the first slice is scored with its
family of later slices:

.. math:: \mathrm{score}(v \mid I, E) = \mathrm{initial}(v \mid I) + \mathrm{later}(v \mid I, E)

with parents I of the slice and E of the slice before (static variables enter both terms). ``initial`` edges of the
template stay as they are, and first slices then say nothing about the others. Cost: the scores of all sets of at most
``max_parents`` + 1 of 2 V + V_s nodes (``families``), and the search over orders (``orders``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch

from bayesdd.dbn.learning.families import NODES, Search, nodes, refuse_unsearched
from bayesdd.dbn.learning.orders import Pairs, best
from bayesdd.dbn.learning.scores import Sample, Score, bge
from bayesdd.dbn.template.columns import columns, whole
from bayesdd.dbn.template.template import Template
from bayesdd.numerics import arguments
from bayesdd.numerics.refusal import Refusal

VARIABLES = 16  # the search over orders takes 2^16 x 16 steps


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
    blocks = _blocks(template, data, weight)
    for count, kind in ((len(template.variables), "variables"), (len(template.static), "static variables")):
        if count > VARIABLES:
            raise Refusal(
                f"learn() searches all orders of at most {VARIABLES} {kind}, got {count}: leave some out, or ask "
                "edges() for the posterior of the edges."
            )
    max_parents = arguments.whole(max_parents, "learn: max_parents=", 0, NODES)
    problems = Search.of(template, max_parents).candidates(blocks, score)
    return with_edges(template, [best(problem) for problem in problems])


def with_edges(template: Template, found: list[Pairs]) -> Template:
    """The template with the edges of the networks that a ``Search`` asked for."""
    of_static, _, of_later = nodes(template)
    pairs = [(of_later[u], of_later[v]) for u, v in found[0]]
    intra = [(parent, child) for (parent, lag), (child, _) in pairs if not lag]
    inter = [(parent, child) for (parent, lag), (child, _) in pairs if lag]
    fixed = [(of_static[u][0], of_static[v][0]) for u, v in found[1]] if template.static else []
    return replace(template, intra=(*fixed, *intra), inter=tuple(inter))


def total(template: Template, data: Any, weight: Any = None, *, score: Score = bge) -> float:
    """Score of a template's own edges, nats; arguments as for :func:`learn`."""
    found, blocks = 0.0, _blocks(template, data, weight)
    groups = (stretch.families for stretch in template.structure.stretches)
    for places, sample, families in zip(nodes(template), blocks, groups, strict=True):
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
    refuse_unsearched(template)
    weight = torch.ones(len(x), dtype=torch.float64) * (1.0 if weight is None else torch.as_tensor(weight))
    steps = x.shape[1] - 1
    later = torch.cat([x[:, 1:], static[:, None].expand(-1, steps, -1), x[:, :-1]], 2).flatten(0, 1)
    values = (static, weight), (torch.cat([x[:, 0], static], 1), weight), (later, weight.repeat_interleave(steps))
    states = [tuple(template.states[name] for name, _ in some if template.states) for some in nodes(template)]
    return [Sample(*part, known) for part, known in zip(values, states, strict=True)]
