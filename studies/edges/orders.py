r"""One cell of ``edges``: the chain of orders beside the probability of every edge, by enumeration of all orders.

The scores are those of complete sequences without noise, few enough that many edges are uncertain. With F(C) the total
of the orders of C and B(C) that of the orders of all others behind C,

.. math:: p(u \to v \mid D) \propto \sum_{C \not\ni v} F(C) \, B(C \cup v) \sum_{pa \ni u,\, pa \subseteq C} e^{score}

where only parents of the slice must lie in C. Cost: 2^V V^2 steps.

Source: Koivisto & Sood, "Exact Bayesian structure discovery in Bayesian networks", JMLR 2004.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bayesdd.dbn.learning import bge, order_chain
from bayesdd.dbn.learning.families import Search
from bayesdd.dbn.learning.orders import Candidates
from bayesdd.dbn.learning.scores import Sample
from studies.edges.cases import WITHIN, Settings, frame, simulated
from studies.shared import cells

ROWS, PARENTS, CHAINS, BURN = 2, 3, 4, 150  # sequences a source; as dbn.edges of many variables draws networks
Floats = NDArray[np.float64]


def measure(variables: str | int, seed: str | int, settings: Settings | None = None) -> Any:
    """One cell.

    Args:
        variables: Number of variables.
        seed: Seed of the network, the sequences and the chains.
        settings: Sizes.

    Returns:
        What goes into the cell's file: ``exact`` and ``drawn`` probabilities ``(2 V, V)``, the number of ``draws``, and
        ``seconds`` of processor time of the chains.
    """
    cells.set_threads()
    s = settings or Settings()
    problem = simulated(WITHIN, int(variables), int(seed), s, rows=ROWS)
    pairs = torch.cat([problem.clean[:, 1:], problem.clean[:, :-1]], 2).flatten(0, 1).double()
    sample = Sample(pairs, torch.ones(len(pairs), dtype=torch.float64), ())
    search = Search.of(frame(problem.template), PARENTS)
    candidates = search.candidates([sample, sample, sample], bge)[0]
    begin = time.process_time()
    drawn = shares(candidates, s.draws, int(seed))
    seconds = time.process_time() - begin
    return {
        "exact": enumerated(candidates).tolist(),
        "drawn": drawn.tolist(),
        "draws": CHAINS * s.draws,
        "seconds": seconds,
    }


def shares(candidates: Candidates, draws: int, seed: int) -> Floats:
    """Share of the networks that have each edge, drawn by chains of orders as ``dbn.edges`` does."""
    count = len(candidates.after)
    generator, found = torch.Generator().manual_seed(seed), np.zeros((2 * count, count))
    for _ in range(CHAINS):
        order = order_chain.start(candidates.after, generator)
        for sweep in range(BURN + draws):
            order, pairs = order_chain.moved(candidates, order, generator)
            for parent, child in pairs if sweep >= BURN else ():
                found[parent, child] += 1 / (CHAINS * draws)
    return found


def enumerated(candidates: Candidates) -> Floats:
    """Probability of every edge ``(2 V, V)``, over all orders and all parents, exactly."""
    count = len(candidates.after)
    every, bits = np.arange(1 << count), 1 << np.arange(count)
    families = [(sets.numpy(), score.numpy()) for sets, score in zip(candidates.sets, candidates.scores, strict=True)]
    total = np.stack([_below(*family, count) for family in families])  # (V, 2^V)
    first, last = np.full((2, 1 << count), -np.inf)
    first[0] = last[-1] = 0.0
    for some in every[1:]:
        of = np.flatnonzero(some & bits)
        first[some] = np.logaddexp.reduce(first[some ^ bits[of]] + total[of, some ^ bits[of]])
    for some in every[-2::-1]:
        of = np.flatnonzero(~some & bits)
        last[some] = np.logaddexp.reduce(last[some | bits[of]] + total[of, some])
    found = np.zeros((2 * count, count))
    for v, (sets, score) in enumerate(families):
        without = every[every & bits[v] == 0]
        around = first[without] + last[without | bits[v]] - first[-1]
        for u in range(2 * count):
            has = (sets >> u & 1) == 1
            if has.any():
                found[u, v] = np.exp(np.logaddexp.reduce(around + _below(sets[has], score[has], count)[without]))
    return found


def _below(sets: NDArray[np.int64], score: Floats, count: int) -> Floats:
    """For every set of variables the total over parents that lie in it, as far as they are variables: ``(2^V,)``."""
    found, every = np.full(1 << count, -np.inf), np.arange(1 << count)
    np.logaddexp.at(found, sets & ((1 << count) - 1), score)
    for bit in range(count):
        upper = every[every >> bit & 1 == 1]
        found[upper] = np.logaddexp(found[upper], found[upper ^ 1 << bit])
    return found
