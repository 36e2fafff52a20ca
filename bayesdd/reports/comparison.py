r"""Two posteriors side by side, parameter by parameter, the one that differs most first.

What orders them is the KL divergence between normals of the same means and sds, shift :math:`d` in sds of the full
posterior and ratio :math:`r` of the sds: :math:`\tfrac12 (r^2 + d^2 - 1 - \log r^2)`.
"""

from __future__ import annotations

import itertools
import os
import warnings
from typing import Any

import numpy as np
import pandas as pd

from bayesdd.numerics.refusal import Refusal
from bayesdd.posterior.arviz import dataset

LEAST_DRAWS = 4  # of a chain, below which R-hat is undefined


def parameters(idata: Any, what: str) -> dict[str, Any]:
    """Draws of every element of the posterior: ``w[age]`` -> ``(chains, draws)``.

    Raises:
        Refusal: No posterior group.
    """
    if isinstance(idata, str | os.PathLike):
        raise Refusal(
            f"{what} needs ArviZ inference data, got the path {str(idata)!r}: bayesdd.posterior.read reads it"
        )
    posterior = getattr(idata, "posterior", None)
    if posterior is None:
        came = type(idata).__name__
        raise Refusal(
            f"{what} needs ArviZ inference data with a group 'posterior', as bayesdd.sample returns, got {came}"
        )
    found = {}
    for name in posterior.data_vars:
        value = posterior[name].transpose("chain", "draw", ...)
        along = [value[dim].values if dim in value.coords else range(value.sizes[dim]) for dim in value.dims[2:]]
        array: Any = np.asarray(value.values, dtype=np.float64)
        for at in itertools.product(*(range(len(names)) for names in along)):
            label = ",".join(str(names[i]) for names, i in zip(along, at, strict=True))
            found[f"{name}[{label}]" if label else str(name)] = array[(..., *at)]
    return found


def compared(full: Any, distilled: Any, what: str = "comparison") -> pd.DataFrame:
    """Means, sds, R-hat and effective sample sizes of both posteriors, the parameter that differs most first.

    Args:
        full: Inference data given all rows.
        distilled: Inference data given the synthetic rows.
        what: Who asks, for messages.

    Returns:
        Index: parameter; columns ``full_mean``, ``full_sd``, ``full_rhat``, ``full_ess``, the same of ``distilled_``,
        ``shift`` (of the mean, in sds of the full posterior) and ``sd_ratio`` (distilled over full). A parameter
        without spread in either has shift 0 where the means are equal, else NaN.

    Raises:
        Refusal: No posterior, or no parameter in common.
    """
    ours, theirs = parameters(full, what), parameters(distilled, what)
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise Refusal(
            f"{what}: the two posteriors have no parameter in common: {sorted(ours)[:3]} and {sorted(theirs)[:3]}; are "
            "they of one model?"
        )
    columns: dict[str, Any] = {}
    for prefix, draws in (("full", ours), ("distilled", theirs)):
        stacked = np.stack([draws[name] for name in shared], -1)
        columns[f"{prefix}_mean"] = stacked.mean((0, 1))
        columns[f"{prefix}_sd"] = stacked.std((0, 1))
        columns[f"{prefix}_rhat"], columns[f"{prefix}_ess"] = _diagnostics(stacked)
    table = pd.DataFrame(columns, index=shared)
    apart = table.distilled_mean - table.full_mean
    with np.errstate(divide="ignore", invalid="ignore"):
        table["shift"] = np.where(apart == 0, 0.0, apart / table.full_sd.replace(0.0, np.nan))
        table["sd_ratio"] = table.distilled_sd / table.full_sd.replace(0.0, np.nan)
        square = table.sd_ratio**2
        order = 0.5 * (square + table["shift"] ** 2 - 1 - np.log(square))
    return table.iloc[np.argsort(-order.fillna(-1.0).to_numpy(), kind="stable")]


def _diagnostics(stacked: Any) -> tuple[Any, Any]:
    """R-hat and effective sample size of ``(chains, draws, K)``; NaN where they are undefined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ announces a later version, and divides by the spread of constants
        import arviz

        group = dataset({"u": stacked}, dims={"u": ["parameter"]})
        chains, draws, count = stacked.shape
        if draws < LEAST_DRAWS:
            return np.full(count, np.nan), np.full(count, np.nan)
        rhat = np.asarray(arviz.rhat(group)["u"]) if chains > 1 else np.full(count, np.nan)
        return rhat, np.asarray(arviz.ess(group)["u"])
