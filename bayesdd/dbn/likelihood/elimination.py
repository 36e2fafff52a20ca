r"""Categorical sequences whose missing entries follow few known patterns: variable elimination.

Entries are taken slice by slice, parents first. A table over the missing entries met so far (the frontier) is
multiplied by each entry's probability, and a missing entry is summed out once its last child has been taken:

.. math:: \alpha \leftarrow \sum_{\text{done}} \alpha \; p(\text{entry} \mid \text{parents}).

What is summed out follows from the pattern alone, so that rows of one pattern are computed together and the function
can be recorded as a graph. An entry without a seen descendant sums to one and is left out. Exact; O(T V J) a
row, pattern and draw, J the states of the largest frontier. Source: Zhang & Poole, "Exploiting causal independence in
Bayesian network inference", JAIR 1996.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from bayesdd.dbn.likelihood.categorical import cell, complete, tables
from bayesdd.dbn.likelihood.gaussian import entries, grouped
from bayesdd.dbn.template.structure import Entry, Family, Node, Values
from bayesdd.dbn.template.template import Template

Patterns = tuple[tuple[int, ...], ...]
CELLS = 2**21  # draws x rows x joint states held at once: 16 MB


def by_pattern(template: Template, values: Values, x: Tensor, static: Tensor, *, patterns: Patterns) -> Tensor:
    """Log p(x | static) of complete rows and of few known patterns of missing states: ``(rows,)``.

    NaN for a row of any other pattern. A pattern is the places, in ``gaussian.entries``, of the entries that are seen.
    """
    flat, log = entries(template, x, static), tables(template, values)
    seen, states = ~flat.isnan(), flat.nan_to_num().long()
    whole = complete(template, values, x.nan_to_num().long(), static.nan_to_num().long())
    score = torch.where(seen.all(1), whole, math.nan)
    for places in patterns:
        wanted = torch.tensor([place in places for place in range(flat.shape[1])])
        found = eliminated(template, log, states, places, x.shape[1])
        score = torch.where((seen == wanted).all(1), found, score)
    return score


def by_group(template: Template, log: Tensor, x: Tensor, static: Tensor) -> Tensor:
    """As :func:`by_pattern`, each pattern on its own rows only, at many draws of log tables ``(S, cells)``."""
    flat = entries(template, x, static)
    found, states = log.new_empty(len(log), len(x)), flat.nan_to_num().long()
    for mine, at in grouped(~flat.isnan()):
        places = tuple(at.tolist())
        cost = largest(template, x.shape[1], (places,))
        for rows in mine.split(max(1, CELLS // cost)):
            own = functools.partial(eliminated, template, states=states[rows], places=places, slices=x.shape[1])
            found[:, rows] = vmap(own, chunk_size=max(1, CELLS // (cost * len(rows))))(log)
    return found


def largest(template: Template, slices: int, patterns: Patterns) -> int:
    """States of the largest frontier of some patterns."""
    steps = (step for places in patterns for step in _steps(template, slices, places))
    return max((math.prod(template.states[name] for name, _ in step.frontier) for step in steps), default=1)


class _Step(NamedTuple):
    """An entry, its family, the frontier with it, and which of the frontier is summed out after it."""

    entry: Entry
    family: Family
    frontier: list[Entry]
    done: list[Entry]


def eliminated(template: Template, log: Tensor, states: Tensor, places: tuple[int, ...], slices: int) -> Tensor:
    """Log p(x | static) ``(rows,)`` of rows that all have one pattern, at one draw of log tables ``(cells,)``.

    States ``(rows, V_s + T V)`` are in the order of ``gaussian.entries``, any state where missing; those at ``places``
    are seen.
    """
    probability, order = log.exp(), template.structure.entries(slices)
    column = {entry: states[:, i] for i, (entry, _) in enumerate(order)}
    table, total, now = log.new_ones(len(states)), log.new_zeros(len(states)), -1
    of_static = None
    for step in _steps(template, slices, places):
        (_, t), width = step.entry, len(step.frontier)
        if t != now:
            # Scaled to one slice by slice, so that long sequences do not underflow.
            table, total = _scaled(table, total)
            of_static, now = total if of_static is None else of_static, t
        table = table[..., None] if step.entry in step.frontier else table

        def of(node: Node, t: int = t, frontier: list[Entry] = step.frontier, width: int = width) -> Tensor:
            entry = (node[0], -1 if node[0] in template.static else t - node[1])
            if entry not in frontier:
                return column[entry].reshape(-1, *[1] * width)
            return torch.arange(template.states[node[0]]).reshape(-1, *[1] * (width - 1 - frontier.index(entry)))

        table = table * probability[cell(template, step.family, of)]
        if step.done:
            table = table.sum([1 + step.frontier.index(entry) for entry in step.done])
    total = _scaled(table, total)[1]
    return total - (total if of_static is None else of_static)


def _scaled(table: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    mass = table.reshape(len(table), -1).sum(1)
    return table / mass.reshape(-1, *[1] * (table.dim() - 1)), total + mass.log()


def _steps(template: Template, slices: int, places: tuple[int, ...]) -> Iterator[_Step]:
    order = template.structure.entries(slices)
    seen = {order[place][0] for place in places}
    parents = {
        (child, t): [(name, -1 if name in template.static else t - lag) for name, lag in family.parents]
        for (child, t), family in order
    }
    needed = set(seen)
    for entry, _ in reversed(order):
        if entry in needed:
            needed.update(parents[entry])
    left = {entry: sum(entry in parents[child] for child in needed) for entry in needed}
    frontier: list[Entry] = []
    for entry, family in order:
        if entry not in needed:
            continue
        if entry not in seen:
            frontier.append(entry)
        for parent in parents[entry]:
            left[parent] -= 1
        done = [one for one in frontier if not left[one]]
        yield _Step(entry, family, list(frontier), done)
        frontier = [one for one in frontier if one not in done]
