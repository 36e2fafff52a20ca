r"""Three linear regressions of posteriordb, with Stan's reference draws.

.. math:: \beta_k \sim N(0, 1000^2), \qquad y_n \sim N(x_n^\top \beta, \sigma^2),

sigma half-Cauchy of scale 2.5 for kidiq, as in Stan's program, half-normal of scale 1000 for the others. Stan's
programs leave beta (and sigma, in nes1992 and earnings) without a prior; bayesdd refuses improper ones, because a
distilled set of few rows may have no posterior then. Against posterior standard deviations of at most 14 (kidiq's
constant) a prior of 1000 moves the log density by at most 3e-3 over the reference draws.

Source: Magnusson et al., "posteriordb: Testing, Benchmarking and Developing Bayesian Inference Algorithms", AISTATS
2025. The data are not part of this project: ``--data DIR`` names a folder that holds ``posteriordb/``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
from torch import Tensor

from bayesdd import Task
from studies.shared.true_kl import Array

WIDE = 1000.0


def model(x: Tensor, y: Tensor | None = None, *, half_cauchy: float | None = None) -> Tensor:
    """x: (N, d) design in its own units, first column 1.  y: (N,) outcomes.  half_cauchy: scale of sigma's prior."""
    beta = pyro.sample("beta", dist.Normal(0.0, WIDE).expand([x.shape[-1]]).to_event(1))
    prior = dist.HalfNormal(WIDE) if half_cauchy is None else dist.HalfCauchy(half_cauchy)
    sigma = pyro.sample("sigma", prior)
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


def log_prior(beta: Array, sigma: Array, *, half_cauchy: float | None = None) -> Array:
    """The same prior in NumPy, up to a constant: ``(S, d)`` and ``(S,)`` to ``(S,)``."""
    of_sigma = -((sigma / WIDE) ** 2) / 2 if half_cauchy is None else -np.log1p((sigma / half_cauchy) ** 2)
    return -((beta / WIDE) ** 2).sum(1) / 2 + of_sigma


def _nes1992(d: dict[str, Any]) -> tuple[Array, Array]:
    age = np.asarray(d["age_discrete"])
    dummies = [age == level for level in (2, 3, 4)]  # 30-44, 45-64, 65 and up
    columns = [d["real_ideo"], d["race_adj"], *dummies, d["educ1"], d["gender"], d["income"]]
    return _design(columns), np.asarray(d["partyid7"], dtype=float)


def _kidiq(d: dict[str, Any]) -> tuple[Array, Array]:
    school, iq = np.asarray(d["mom_hs"], dtype=float), np.asarray(d["mom_iq"], dtype=float)
    return _design([school, iq, school * iq]), np.asarray(d["kid_score"], dtype=float)


def _earnings(d: dict[str, Any]) -> tuple[Array, Array]:
    height, male = np.asarray(d["height"], dtype=float), np.asarray(d["male"], dtype=float)
    z = (height - height.mean()) / height.std(ddof=1)  # Stan's sd() divides by N - 1
    return _design([z, male, z * male]), np.log(np.asarray(d["earn"], dtype=float))


# dataset -> name of its reference draws, columns, scale of sigma's half-Cauchy prior
POSTERIORS: dict[str, tuple[str, Callable[[dict[str, Any]], tuple[Array, Array]], float | None]] = {
    "nes1992": ("nes1992-nes", _nes1992, None),
    "kidiq": ("kidiq-kidscore_interaction", _kidiq, 2.5),
    "earnings": ("earnings-logearn_interaction_z", _earnings, None),
}


def task(name: str, data: str | Path) -> Task:
    """The task of one dataset from the folder that holds ``posteriordb/``."""
    _, columns, half_cauchy = POSTERIORS[name]
    x, y = columns(_unzipped(Path(data) / "posteriordb" / "data" / "data" / f"{name}.json.zip"))
    return Task(partial(model, half_cauchy=half_cauchy), {"x": x, "y": y})


def reference_draws(name: str, data: str | Path) -> tuple[Array, Array]:
    """Stan's draws: beta ``(10_000, d)`` and sigma ``(10_000,)``."""
    draws = Path(data) / "posteriordb" / "reference_posteriors" / "draws" / "draws"
    chains = _unzipped(draws / f"{POSTERIORS[name][0]}.json.zip")
    joined = {key: np.concatenate([chain[key] for chain in chains]) for key in chains[0]}
    width = sum(key.startswith("beta[") for key in joined)
    return np.column_stack([joined[f"beta[{k}]"] for k in range(1, width + 1)]), joined["sigma"]


def _design(columns: list[Any]) -> Array:
    first = np.ones(len(columns[0]))
    return np.column_stack([first, *(np.asarray(column, dtype=float) for column in columns)])


def _unzipped(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(archive.namelist()[0]))
