r"""The sets of parents that variables may have, and their scores.

A score is a difference of one function of sets of nodes (``scores``), which is computed once for each set that some
family needs. Which sets those are depends on the template alone: a chain that scores completed rows sweep by sweep
looks them up once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.dbn.learning.orders import Candidates, masks
from bayesdd.dbn.learning.scores import Sample, Score
from bayesdd.dbn.template.structure import Node
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal

NODES = 62  # bits of a mask
MOST = 6_000_000  # families: their scores take half a second a sweep, and 100 MB

Edge = tuple[str, str]  # (parent, child); a parent of the slice before is NAME_before


class Rules(NamedTuple):
    """Which edges there may be, and which there must be.

    Attributes:
        forbidden: Edges that are not.
        required: Edges that are.
        tiers: Groups of variables, earlier ones first: no edge within a slice leads from a later group to an earlier.
        within: Whether there are edges within a slice at all.
    """

    forbidden: Sequence[Edge] = ()
    required: Sequence[Edge] = ()
    tiers: Sequence[Sequence[str]] = ()
    within: bool = True


class Places(NamedTuple):
    """Where a function of sets of nodes has to be known.

    Attributes:
        groups: Sets of one size each: their places in the table, and their nodes ``(B, size)``.
        families: For every variable the places of its sets of parents with it and without it.
        size: Number of sets.
    """

    groups: list[tuple[Tensor, Tensor]]
    families: list[tuple[Tensor, Tensor]]
    size: int

    @classmethod
    def of(cls, sets: list[Tensor]) -> Places:
        """For every variable bit masks of its sets of parents."""
        pairs = [(some | 1 << v, some) for v, some in enumerate(sets)]
        every = torch.unique(torch.cat([mask for pair in pairs for mask in pair]))
        bits = every[:, None] >> torch.arange(NODES) & 1
        sizes = bits.sum(1)
        at = [(sizes == k).nonzero()[:, 0] for k in range(int(sizes.max()) + 1)]
        groups = [(rows, bits[rows].nonzero()[:, 1].reshape(len(rows), k)) for k, rows in enumerate(at) if len(rows)]
        families = [(torch.searchsorted(every, own), torch.searchsorted(every, without)) for own, without in pairs]
        return cls(groups, families, len(every))

    def scores(self, sample: Sample, score: Score) -> list[Tensor]:
        """For every variable the scores of its families; zero without rows."""
        table = torch.zeros(self.size, dtype=torch.float64)
        for rows, sets in self.groups if len(sample.values) else ():  # sequences of one slice have no later ones
            table[rows] = score(sample, sets).double()
        return [table[own] - table[without] for own, without in self.families]


@dataclass(frozen=True, eq=False)
class Search:
    """The networks to choose from: that of a slice, and that of the static variables if there are any.

    Attributes:
        template: Names, static variables and ``initial`` edges.
        sets: Of both networks, for every variable the sets that may be its parents.
        after: For every variable the mask of those that must stand behind it in the order.
        later: Where the scores of later slices are to be known.
        first: Those of first slices; None where ``initial`` edges stay as they are.
        alone: Those of the static variables; None without them.
    """

    template: Template
    sets: list[list[Tensor]]
    after: list[int]
    later: Places
    first: Places | None
    alone: Places | None

    @classmethod
    def of(cls, template: Template, max_parents: int, rules: Rules | None = None) -> Search:
        """All networks of at most ``max_parents`` parents a variable.

        Raises:
            Refusal: Variables are of both kinds, the nodes or sets are too many, or no network follows the rules.
        """
        refuse_unsearched(template)
        of_static, of_first, of_later = nodes(template)
        if len(of_later) > NODES:
            raise Refusal(
                f"a search for edges takes at most {NODES} nodes, two for each variable and one for each static one, "
                f"got {len(of_later)}: leave variables out."
            )
        ruled = _ruled(template, rules or Rules(), max_parents)
        more = [(free, max_parents - needed.bit_count()) for free, needed in ruled]
        if (count := sum(math.comb(len(free), k) for free, most in more for k in range(most + 1))) > MOST:
            raise Refusal(
                f"{count:,} families of up to {max_parents} parents are to be scored, more than {MOST:,}: lower "
                "max_parents=, or forbid edges (within=False forbids those within a slice)."
            )
        sets = [masks(*some) | needed for some, (_, needed) in zip(more, ruled, strict=True)]
        inner = (1 << len(of_first)) - 1
        first = None if template.initial is not None else Places.of([some & inner for some in sets])
        static = [masks([u for u in range(len(of_static)) if u != v], max_parents) for v in range(len(of_static))]
        alone = Places.of(static) if static else None
        after = _after(template, [needed for _, needed in ruled])
        return cls(template, [sets, static] if static else [sets], after, Places.of(sets), first, alone)

    @functools.cached_property
    def separate(self) -> list[bool]:
        """Whether no edges lead from a variable to another of its kind: of the slice, and of the static variables."""
        return [not any(bool((some & ((1 << len(sets)) - 1)).any()) for some in sets) for sets in self.sets]

    def candidates(self, blocks: Sequence[Sample], score: Score) -> list[Candidates]:
        """With the scores of the values of static variables, first slices and later ones, in the order of ``nodes``."""
        of_static, of_first, of_later = blocks
        scores = self.later.scores(of_later, score)
        if self.first is not None:
            scores = [a + b for a, b in zip(scores, self.first.scores(of_first, score), strict=True)]
        found = [Candidates(self.sets[0], scores, self.after)]
        if self.alone is not None:
            found.append(Candidates(self.sets[1], self.alone.scores(of_static, score), [0] * len(self.sets[1])))
        return found


def _after(template: Template, needed: list[int]) -> list[int]:
    """For every variable the mask of those that required edges, and those of the first slice, put behind it."""
    names = template.variables
    pairs = {(names.index(u), names.index(v)) for u, v in template.initial or () if u in names}
    pairs |= {(u, v) for v, mask in enumerate(needed) for u in range(len(names)) if mask >> u & 1}
    try:
        TopologicalSorter({v: {u for u, child in pairs if child == v} for v in range(len(names))}).prepare()
    except CycleError as error:
        circle = " -> ".join(names[v] for v in error.args[1])
        raise Refusal(f"edges: required edges close a circle within a slice: {circle}") from error
    return [sum(1 << v for parent, v in pairs if parent == u) for u in range(len(names))]


def refuse_unsearched(template: Template) -> None:
    """Refuses templates of both kinds of variables, for which no score is here, and longer lags."""
    if template.structure.lags > 1:
        raise Refusal(
            "edges are searched within a slice and from the slice before: leave edges with a lag of "
            f"{template.structure.lags} out, or give that value a column of its own."
        )
    if template.mixed:
        raise Refusal("edges are searched among variables of one kind: leave the categorical ones out, or the others.")


def nodes(template: Template) -> tuple[list[Node], list[Node], list[Node]]:
    """Nodes of the static variables, of a first slice and of a later one: their order is that of the bits of a set."""
    of_static: list[Node] = [(name, 0) for name in template.static]
    of_first: list[Node] = [(name, 0) for name in template.variables] + of_static
    return of_static, of_first, of_first + [(name, 1) for name in template.variables]


def _ruled(template: Template, rules: Rules, most: int) -> list[tuple[list[int], int]]:
    """For every variable the nodes that may be its parents, and the mask of those that must be besides."""
    *_, of_later = nodes(template)
    names, places = template.variables, {f"{name}_before" if lag else name: k for k, (name, lag) in enumerate(of_later)}

    def place(edge: Edge) -> tuple[int, int]:
        parent, child = edge if isinstance(edge, Sequence) and len(edge) == 2 else (None, None)
        if isinstance(edge, str) or parent not in places or child not in names or parent == child:
            raise Refusal(
                f"edges: {edge!r} is no edge (parent, child), from one of {', '.join(places)} to another of "
                f"{', '.join(names)}"
            )
        return places[parent], names.index(child)

    if loose := [group for group in rules.tiers if isinstance(group, str)]:
        raise Refusal(f"edges: tiers= needs groups of names, such as [({loose[0]!r},), ...], got {loose[0]!r}")
    listed = [name for group in rules.tiers for name in group]
    if twice := [name for name in listed if listed.count(name) > 1]:
        raise Refusal(f"edges: {twice[0]!r} stands in two of the tiers=")
    tier = {name: k for k, group in enumerate(rules.tiers) for name in group}
    if unknown := sorted(tier.keys() - set(names)):
        raise Refusal(f"edges: tiers= names {unknown[0]!r}; the variables are {', '.join(names)}")
    forbidden = {place(edge) for edge in rules.forbidden}
    forbidden |= {(names.index(u), names.index(v)) for u in tier for v in tier if tier[u] > tier[v]}
    if not rules.within:
        forbidden |= {(u, v) for u in range(len(names)) for v in range(len(names))}
    required = {place(edge) for edge in rules.required}
    if both := sorted(required & forbidden):
        parent, child = both[0]
        raise Refusal(f"edges: {list(places)[parent]!r} -> {names[child]!r} is required and forbidden")
    free = [
        [u for u in range(len(of_later)) if u != v and (u, v) not in forbidden | required] for v in range(len(names))
    ]
    needed = [sum(1 << u for u, child in required if child == v) for v in range(len(names))]
    for v, mask in enumerate(needed):
        if mask.bit_count() > most:
            raise Refusal(f"edges: {names[v]!r} has {mask.bit_count()} required parents, more than max_parents={most}")
    return list(zip(free, needed, strict=True))
