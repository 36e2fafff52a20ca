"""One cell of ``edges``: the posterior of the edges of a simulated network, given its sources."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from bayesdd.dbn.learning import edges
from studies.edges.cases import Settings, frame, simulated, table_of, true_edges
from studies.shared import cells

ALL, BETWEEN, AGAIN = "edges", "between", "again"  # all edges, those from slice to slice, all with another seed


def measure(asked: str, network: str, variables: str | int, seed: str | int, settings: Settings | None = None) -> Any:
    """One cell.

    Args:
        asked: ``edges``; ``between``, only those from slice to slice; ``again``, another seed of the chains.
        network: ``within`` or ``lags``, as :func:`studies.edges.cases.simulated`.
        variables: Number of variables.
        seed: Seed of the network, the sequences and the chains.
        settings: Sizes.

    Returns:
        What goes into the cell's file: ``true`` and ``probability`` as tables, ``seconds`` of processor time, and
        ``warned``, whether the chains disagreed.
    """
    cells.set_threads()
    s = settings or Settings()
    problem = simulated(network, int(variables), int(seed), s)
    chains: dict[str, Any] = {"draws": s.draws, "burn": s.burn, "seed": int(seed) + 1000 * (asked == AGAIN)}
    begin = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = edges(frame(problem.template), problem.sources, within=asked != BETWEEN, **chains)
    seconds = time.process_time() - begin
    names = problem.template.variables
    share = table_of(found.probability.to_dict(), names)
    if asked == BETWEEN:
        share[: len(names)] = np.nan  # nothing is said of them
    return {
        "true": true_edges(problem.template).tolist(),
        "probability": share.round(5).tolist(),
        "seconds": seconds,
        "warned": any(issubclass(w.category, UserWarning) for w in caught),
    }
