"""One cell of ``edges``: what a careful user would do instead, on the sources' rows completed once."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # IterativeImputer is not there without
from sklearn.impute import IterativeImputer

from bayesdd.dbn.learning import bge, bic
from studies.edges.cases import Settings, simulated, true_edges
from studies.edges.climbing import climbed
from studies.edges.lasso import selected
from studies.shared import cells

Floats = NDArray[np.float64]
Method = tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]  # how rows are completed, how edges are found


def by_means(seen: Floats) -> Floats:
    """Sequences ``(rows, T, V)`` with every missing entry the mean of its variable."""
    return np.where(np.isnan(seen), np.nanmean(seen, axis=(0, 1)), seen)


def by_regressions(seen: Floats) -> Floats:
    """Sequences ``(rows, T, V)`` completed by regressions in turn, on the slice and the two beside it."""
    rows, slices, count = seen.shape
    nothing = np.full((rows, 1, count), np.nan)
    before = np.concatenate([nothing, seen[:, :-1]], 1)
    after = np.concatenate([seen[:, 1:], nothing], 1)
    windows = np.concatenate([seen, before, after], 2).reshape(-1, 3 * count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ten rounds, as is its default
        filled = IterativeImputer(random_state=0).fit_transform(windows)
    return np.asarray(filled)[:, :count].reshape(rows, slices, count)


METHODS: Mapping[str, Method] = {
    "lasso, means": (by_means, selected),
    "lasso": (by_regressions, selected),
    "lasso, one standard error": (by_regressions, partial(selected, one_error=True)),
    "lasso, slice too, one standard error": (by_regressions, partial(selected, beside=True, one_error=True)),
    "max-min hill climbing, BIC": (by_regressions, partial(climbed, score=bic)),
    "hill climbing, BIC": (by_regressions, partial(climbed, score=bic, tested=False)),
    "hill climbing, BGe": (by_regressions, partial(climbed, score=bge, tested=False)),
}


def measure(network: str, variables: str | int, seed: str | int, settings: Settings | None = None) -> Any:
    """One cell.

    Args:
        network: ``within`` or ``lags``, as :func:`studies.edges.cases.simulated`.
        variables: Number of variables.
        seed: Seed of the network and the sequences.
        settings: Sizes.

    Returns:
        What goes into the cell's file: ``true``, and for every method ``probability`` (zeros and ones) as tables and
        ``seconds`` of processor time, completion included; ``seconds`` of all.
    """
    cells.set_threads()
    problem = simulated(network, int(variables), int(seed), settings or Settings())
    seen, found = problem.seen.numpy(), {}
    for name, (complete, method) in METHODS.items():
        begin = time.process_time()
        table = method(complete(seen))
        found[name] = {"probability": table.tolist(), "seconds": time.process_time() - begin}
    return {
        "true": true_edges(problem.template).tolist(),
        "methods": found,
        "seconds": sum(one["seconds"] for one in found.values()),
    }
