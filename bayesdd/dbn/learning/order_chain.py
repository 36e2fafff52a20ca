r"""Networks of many variables drawn by a chain of orders, where the tables of ``orders`` have too many subsets.

The chain moves a variable to another place in the order and accepts by the sums over all parents that the order allows,

.. math:: p(\prec \mid D) \propto \prod_v \sum_{I \subseteq \mathrm{before}(v)} \sum_E e^{\mathrm{score}(v \mid I, E)},

so that only orders are searched; parents are then drawn exactly. A network's prior is the number of orders that it
allows, as in ``orders``. Without edges among the variables every draw is exact and independent.

Source: Friedman & Koller, "Being Bayesian about network structure", Machine Learning 2003.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesdd.dbn.learning.orders import Candidates, Pairs

MOVES = 4  # proposals a variable and call


def moved(candidates: Candidates, order: list[int], generator: torch.Generator) -> tuple[list[int], Pairs]:
    """The order some moves later, and a network drawn given it.

    Args:
        candidates: The families; the order begins as one that their ``after`` allows.
        order: Variables, parents before children.
        generator: Random numbers.
    """
    count = len(order)
    inner = [sets & ((1 << count) - 1) for sets in candidates.sets]
    if any(bool(some.any()) for some in inner):
        order = _moved(*_totals(inner, candidates.scores), candidates.after, order, generator)
    found: Pairs = []
    for v, before in _before(order):
        within = (inner[v] & ~before) == 0
        share = torch.softmax(candidates.scores[v][within], 0)
        mask = int(candidates.sets[v][within][torch.multinomial(share, 1, generator=generator)])
        found += [(parent, v) for parent in range(mask.bit_length()) if mask >> parent & 1]
    return order, found


def start(after: list[int], generator: torch.Generator) -> list[int]:
    """A random order in which every variable precedes those that must stand behind it."""
    left, found = list(range(len(after))), list[int]()
    while left:
        free = [v for v in left if not any(after[u] >> v & 1 for u in left)]
        v = free[int(torch.randint(len(free), (), generator=generator))]
        left.remove(v)
        found.append(v)
    return found


def _moved(inner: Tensor, total: Tensor, after: list[int], order: list[int], generator: torch.Generator) -> list[int]:
    """The order after some proposals."""
    count = len(order)

    def scores(some: list[tuple[int, int]]) -> Tensor:
        """Of variables with the masks of those before them."""
        at, before = (torch.tensor(part) for part in zip(*some, strict=True))
        return torch.where((inner[at] & ~before[:, None]) == 0, total[at], -math.inf).logsumexp(1)

    now = scores(_before(order))  # by place in the order
    for _ in range(MOVES * count):
        source, target = torch.randint(count, (2,), generator=generator).tolist()
        proposal = order.copy()
        proposal.insert(target, proposal.pop(source))
        level = torch.rand((), generator=generator, dtype=torch.float64).log()
        standing = _before(proposal)
        if source == target or any(mask & after[v] for v, mask in standing):
            continue
        between = slice(min(source, target), max(source, target) + 1)  # the others have the same before them
        there = scores(standing[between])
        if bool(level < there.sum() - now[between].sum()):
            order, now[between] = proposal, there
    return order


def _totals(inner: list[Tensor], scores: list[Tensor]) -> tuple[Tensor, Tensor]:
    """For every variable its sets of parents among the variables, and the total of each over all others: ``(V, K)``."""
    masks, totals = [], []
    for some, score in zip(inner, scores, strict=True):
        unique, place = some.unique(return_inverse=True)
        top = torch.full((len(unique),), -math.inf, dtype=score.dtype).scatter_reduce(0, place, score, "amax")
        masks.append(unique)
        totals.append(top + torch.zeros_like(top).scatter_add(0, place, (score - top[place]).exp()).log())
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(masks, batch_first=True), pad(totals, batch_first=True, padding_value=-math.inf)


def _before(order: list[int]) -> list[tuple[int, int]]:
    """Every variable with the mask of those before it."""
    found, mask = [], 0
    for v in order:
        found.append((v, mask))
        mask |= 1 << v
    return found
