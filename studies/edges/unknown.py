"""One cell of ``edges``: the posterior of the edges where nobody knows how noisy each source is."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from typing import Any

from bayesdd.dbn.learning import edges
from studies.edges.cases import Settings, frame, simulated, table_of, true_edges
from studies.shared import cells


def measure(network: str, variables: str | int, seed: str | int, settings: Settings | None = None) -> Any:
    """One cell.

    Args:
        network: ``within`` or ``lags``, as :func:`studies.edges.cases.simulated`.
        variables: Number of variables.
        seed: Seed of the network, the sequences and the chains.
        settings: Sizes.

    Returns:
        What goes into the cell's file: ``true`` and ``probability`` as tables, ``seconds`` of processor time.
    """
    cells.set_threads()
    s = settings or Settings()
    problem = simulated(network, int(variables), int(seed), s)
    sources = [replace(some, noise=0.0, noise_site=f"noise_{k}") for k, some in enumerate(problem.sources)]
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that chains disagree is seen in the probabilities
        found = edges(frame(problem.template), sources, draws=s.draws, burn=s.burn, seed=int(seed))
    return {
        "true": true_edges(problem.template).tolist(),
        "probability": table_of(found.probability.to_dict(), problem.template.variables).round(5).tolist(),
        "seconds": time.process_time() - begin,
    }
