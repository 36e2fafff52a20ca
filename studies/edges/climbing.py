r"""Dynamic max-min hill climbing: candidates by tests of independence, then a greedy search of the best score.

Of every variable the *parents and children* are sought among its slice and the two beside it. Going forward, the node

.. math:: \arg\max_u \min_{S \subseteq \text{found}} |z(u, v \mid S)|

is added as long as it is significant; going back, a node is dropped that some set of the others separates from v. Edges
are candidates where each end is among the parents and children of the other. From none on, the edge is added, dropped
or, within a slice, turned that raises the score most, until none does. Tests are Fisher's z of partial correlations.

Sources: Trabelsi, Leray, Ben Ayed & Alimi, "Dynamic MMHC: a local search algorithm for dynamic Bayesian network
structure learning", IDA 2013; Tsamardinos, Brown & Aliferis, "The max-min hill-climbing Bayesian network structure
learning algorithm", Machine Learning 2006.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from bayesdd.dbn.learning.scores import Sample, Score

LEVEL, MOST = 0.05, 3  # of the tests, and nodes that one is conditioned on: as is usual
Floats = NDArray[np.float64]


def climbed(x: Floats, *, score: Score, tested: bool = True) -> Floats:
    """Edges of complete sequences: ``(2 V, V)`` of zeros and ones, NaN where none can be.

    Args:
        x: Sequences of at least three slices ``(rows, T, V)``.
        score: Such as ``bic`` or ``bge``.
        tested: Whether only candidates are searched, or all edges.
    """
    count = x.shape[2]
    pairs = np.concatenate([x[:, 1:], x[:, :-1]], 2).reshape(-1, 2 * count)
    sample = Sample(torch.as_tensor(pairs), torch.ones(len(pairs), dtype=torch.float64), ())
    loops = np.eye(2 * count, count, dtype=bool)  # of the slice: no edges
    table = _Climb(sample, score, candidates(x) if tested else ~loops).edges().astype(float)
    table[loops] = np.nan
    return table


def candidates(x: Floats) -> NDArray[np.bool_]:
    """Edges whose ends are among each other's parents and children: ``(2 V, V)``, the slice before second."""
    count = x.shape[2]
    windows = np.concatenate([x[:, 1:-1], x[:, :-2], x[:, 2:]], 2).reshape(-1, 3 * count)
    correlation = np.corrcoef(windows, rowvar=False)
    near = np.array([_near(v, correlation, len(windows)) for v in range(count)])  # (V, 3 V)
    within, before, after = np.split(near, 3, axis=1)
    return np.concatenate([within & within.T, before.T & after])


def _near(v: int, correlation: Floats, rows: int) -> NDArray[np.bool_]:
    """The parents and children of a variable among all nodes."""
    critical = stats.norm.isf(LEVEL / 2)

    def association(given: tuple[int, ...]) -> Floats:
        """|z| of all nodes with v given some; infinite of these."""
        at = list(given)
        weights = np.linalg.solve(correlation[np.ix_(at, at)], correlation[at])
        left = (1 - (correlation[at] * weights).sum(0)).clip(1e-12)
        partial = (correlation[v] - correlation[at, v] @ weights) / np.sqrt(left * left[v])
        z = np.sqrt(rows - len(at) - 3) * np.arctanh(np.abs(partial).clip(max=1 - 1e-12))
        z[at] = np.inf
        return z

    found, least = list[int](), association(())
    least[v] = 0.0
    while len(found) < len(least):
        best = int(np.where(np.isin(np.arange(len(least)), found), -1.0, least).argmax())
        if best in found or least[best] < critical:
            break
        for size in range(MOST):
            for others in itertools.combinations(found, size):
                least = np.minimum(least, association((*others, best)))
        found.append(best)
    for node in found.copy():
        rest = [other for other in found if other != node]
        sets = (given for size in range(MOST + 1) for given in itertools.combinations(rest, size))
        if any(association(given)[node] < critical for given in sets):
            found.remove(node)
    return np.isin(np.arange(len(least)), found)


class _Climb:
    """A greedy search of the edges with the best score."""

    def __init__(self, sample: Sample, score: Score, allowed: NDArray[np.bool_]) -> None:
        self.sample, self.score, self.allowed = sample, score, allowed
        self.count = allowed.shape[1]
        self.known: dict[tuple[int, ...], float] = {}

    def edges(self) -> NDArray[np.bool_]:
        """Edges where no step raises the score."""
        now = np.zeros_like(self.allowed)
        while True:
            steps = list(self._steps(now))
            best, gain = max(steps, key=lambda step: step[1], default=(now, 0.0))
            if gain < 1e-9:
                return now
            now = best

    def _steps(self, now: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], float]]:
        """Every network that is an edge away, with what it gains."""
        for u, v in np.argwhere(self.allowed).tolist():
            other = now.copy()
            other[u, v] = not now[u, v]
            if now[u, v] or self._without_circle(other, u, v):
                yield other, self._family(other, v) - self._family(now, v)
            if now[u, v] and u < self.count:
                other = other.copy()
                other[v, u] = True
                if self._without_circle(other, v, u):
                    yield other, sum(self._family(other, w) - self._family(now, w) for w in (u, v))

    def _without_circle(self, edges: NDArray[np.bool_], u: int, v: int) -> bool:
        """Whether no way leads back from v to u."""
        reached, waiting = set[int](), [v]
        while waiting:
            node = waiting.pop()
            if node not in reached:
                reached.add(node)
                waiting += np.flatnonzero(edges[node]).tolist()
        return u not in reached

    def _family(self, edges: NDArray[np.bool_], v: int) -> float:
        """Score of a variable and its parents."""
        parents = np.flatnonzero(edges[:, v]).tolist()
        return self._of(tuple(sorted([*parents, v]))) - self._of(tuple(parents))

    def _of(self, nodes: tuple[int, ...]) -> float:
        if nodes not in self.known:
            self.known[nodes] = float(self.score(self.sample, torch.tensor([nodes], dtype=torch.int64)))
        return self.known[nodes]
