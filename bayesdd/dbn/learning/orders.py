r"""Networks of one kind of slice: the one of the best score, and draws from the posterior, exactly.

Only parents I among the n variables of the slice can close a circle; other parents E are free. Hence, for every
variable v and set C of variables,

.. math:: f(v, C) = \bigoplus_{I \subseteq C} \bigoplus_E \mathrm{score}(v \mid I, E), \qquad
          F(C) = \bigoplus_{v \in C} \{F(C \setminus v) + f(v, C \setminus v)\}

with the maximum for :math:`\oplus` F gives the best network, with the log of a sum of exponentials draws of orders and
parents. A network's prior is then the number of orders that it allows, as usual.
Cost: 2^n n steps.

Sources: Silander & Myllymaki, "A simple approach for finding the globally optimal Bayesian network structure", UAI
2006; Koivisto & Sood, "Exact Bayesian structure discovery in Bayesian networks", JMLR 2004; He, Tian & Wu, "Structure
learning in Bayesian networks of a moderate size by efficient sampling", JMLR 2016.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Pairs = list[tuple[int, int]]  # (parent, child), as places
Join = Callable[[Tensor, Tensor], Tensor]  # total scores of two
Add = Callable[[list[float]], float]  # total score of several
Pick = Callable[[list[float]], int]  # which of several


class Candidates(NamedTuple):
    """The families that a network is made of.

    Attributes:
        sets: For every variable bit masks of the sets that may be its parents ``(B,)``; the first bits are the
            variables.
        scores: For every variable scores of those families ``(B,)``, nats.
        after: For every variable the mask of those that must stand behind it in the order.
    """

    sets: list[Tensor]
    scores: list[Tensor]
    after: list[int]


def masks(nodes: Sequence[int], most: int) -> Tensor:
    """Bit masks of all sets of at most ``most`` nodes, small sets first, so that of equal scores the smallest wins."""
    bits = [1 << node for node in nodes]
    sets = (chosen for size in range(min(most, len(bits)) + 1) for chosen in itertools.combinations(bits, size))
    return torch.tensor([sum(chosen) for chosen in sets])


def best(candidates: Candidates) -> Pairs:
    """Edges of the network of the highest score."""
    return _network(candidates, torch.maximum, max, lambda scores: scores.index(max(scores)))


def drawn(candidates: Candidates, generator: torch.Generator) -> Pairs:
    """Edges of a network drawn from the posterior, scores being log marginal likelihoods."""

    def pick(scores: list[float]) -> int:
        share = torch.softmax(torch.tensor(scores, dtype=torch.float64), 0)
        return int(torch.multinomial(share, 1, generator=generator))

    return _network(candidates, torch.logaddexp, _log_sum, pick)


def _network(candidates: Candidates, join: Join, add: Add, pick: Pick) -> Pairs:
    """Edges of a network."""
    count = len(candidates.after)
    families = list(zip(candidates.sets, candidates.scores, strict=True))
    tables = [_subsets(*family, count, join).tolist() for family in families]
    found: Pairs = []
    for v, before in _order(tables, candidates.after, add, pick):
        sets, scores = families[v]
        within = (sets & ((1 << count) - 1) & ~before) == 0  # whose parents stand before v
        mask = int(sets[within][pick(scores[within].tolist())])
        found += [(parent, v) for parent in range(mask.bit_length()) if mask >> parent & 1]
    return found


def _subsets(sets: Tensor, scores: Tensor, count: int, join: Join) -> Tensor:
    """For every set C of variables the total over parents that lie in C, as far as they are variables: ``(2^n,)``."""
    inner = sets & ((1 << count) - 1)
    total = torch.full((1 << count,), -math.inf, dtype=scores.dtype).scatter_reduce(0, inner, scores, "amax")
    if join is torch.logaddexp:
        sums = torch.zeros_like(total).scatter_add(0, inner, (scores - total[inner]).exp())
        total = torch.where(total > -math.inf, total + sums.log(), total)
    every = torch.arange(1 << count)
    for bit in range(count):
        upper = every[every >> bit & 1 == 1]
        total[upper] = join(total[upper], total[upper ^ 1 << bit])
    return total


def _order(tables: list[list[float]], after: list[int], add: Add, pick: Pick) -> list[tuple[int, int]]:
    """Variables with the set of those before them, the last in order first."""
    count = len(tables)

    def options(chosen: int) -> tuple[list[int], list[float]]:
        lasts = [v for v in range(count) if chosen >> v & 1 and not chosen & after[v]]
        return lasts, [total[chosen ^ 1 << v] + tables[v][chosen ^ 1 << v] for v in lasts]

    total = [0.0] + [-math.inf] * ((1 << count) - 1)
    for chosen in range(1, 1 << count):
        scores = options(chosen)[1]
        total[chosen] = add(scores) if scores else -math.inf
    found, chosen = [], (1 << count) - 1
    while chosen:
        lasts, scores = options(chosen)
        v = lasts[pick(scores)]
        chosen ^= 1 << v
        found.append((v, chosen))
    return found


def _log_sum(scores: list[float]) -> float:
    top = max(scores)
    return top + math.log(sum(math.exp(score - top) for score in scores)) if top > -math.inf else top
