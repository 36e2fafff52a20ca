"""Edges of a network as a list of arrows, known or with their probabilities."""

from __future__ import annotations

from typing import NamedTuple

from bayesdd.dbn.learning._edges import Edges
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import WrongType

BEFORE = "_before"  # what a parent of the slice before is called by, as in the names of a regression's terms
LEAST = 0.1  # probability below which an edge is left out of pictures


class Arrow(NamedTuple):
    """An edge: parent, child, how many slices before the parent stands, and the edge's probability (1 if known)."""

    parent: str
    child: str
    lag: int
    probability: float


def arrows(network: Template | Edges) -> list[Arrow]:
    """The edges of a template, or those that sources give a probability of at least 0.1; none of the first slice's own.

    Raises:
        WrongType: Something else came.
    """
    if isinstance(network, Template):
        return [
            *(Arrow(edge[0], edge[1], 0, 1.0) for edge in network.intra),
            *(Arrow(edge[0], edge[1], edge[2] if len(edge) == 3 else 1, 1.0) for edge in network.inter),
        ]
    if not isinstance(network, Edges):
        raise WrongType(f"a network is a dbn.Template or what dbn.edges returns, got {type(network).__name__}")
    every = {*network.template.variables, *network.template.static}
    found = []
    for (parent, child), probability in network.probability.items():
        lag = int(parent not in every)
        if probability >= LEAST:
            found.append(Arrow(parent.removesuffix(BEFORE) if lag else parent, child, lag, float(probability)))
    return found


def names_of(network: Template | Edges) -> Template:
    """The template that says which variables there are."""
    return network if isinstance(network, Template) else network.template
