"""Regression tasks of ``glm_accuracy`` and ``lens``: how each is built, what is claimed of it, and its true KL."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import bayesdd
from models import gaussian_mean, linear_regression, logistic_regression, poisson_regression, varying_intercepts
from studies.shared import densities, posteriordb, true_kl
from studies.shared.commands import named
from studies.shared.true_kl import Array, Divergences

Truth = Callable[[bayesdd.Task, bayesdd.Distilled, int, Path | None], dict[str, float]]


@dataclass(frozen=True)
class Case:
    """One task of the study.

    Attributes:
        name: As in cells' names.
        title: As in the table.
        size: Synthetic rows M.
        smoke_size: M of the tiny version.
        task: (seed, data folder, smoke) -> task.
        truth: (task, distilled, seed, data folder) -> reverse, forward and laplace KL, standard errors.
        median: Claimed bound on the median, nats.
        worst: Claimed bound on the worst seed, nats.
        published: What the best published code reaches.
        file: What of the data folder it needs, if anything.
        forward_only: Whether the claim is of the forward KL only.
        closest: Claimed bound on the median at a tolerance of 1e-8, nats, where that is measured; the worst seed is
            within three times it.
        in_smoke: Whether the tiny version is run.
    """

    name: str
    title: str
    size: int
    smoke_size: int
    task: Callable[[int, Path | None, bool], bayesdd.Task]
    truth: Truth
    median: float
    worst: float = math.inf
    published: str = ""
    file: str = ""
    forward_only: bool = False
    closest: float = math.inf
    in_smoke: bool = True


C = TypeVar("C", bound=Any)  # a case: it has a name and, if it needs one, a file of the data folder


def chosen(cases: Sequence[C], only: str, data: str | Path | None) -> tuple[list[C], list[str]]:
    """The cases whose name contains ``only`` and whose data are there, and a line for each that is left out.

    Raises:
        Refusal: No case has such a name.
    """
    wanted = named(only, [case.name for case in cases], "task")
    some = [case for case in cases if case.name in wanted]
    lacking = [case for case in some if case.file and (data is None or not (Path(data) / case.file).exists())]
    notes = [f"skipped {case.name}: its data are not there (--data DIR or BAYESDD_DATA)" for case in lacking]
    return [case for case in some if case not in lacking], notes


def _columns(task: bayesdd.Task) -> dict[str, Array]:
    return {name: column.numpy() for name, column in task.data.items()}


def _weighted(distilled: bayesdd.Distilled) -> dict[str, Array]:
    return {name: column.numpy() for name, column in distilled.data.items()} | {"weight": distilled.weight.numpy()}


def _recorded(found: Divergences) -> dict[str, float]:
    return {
        "reverse": found.reverse,
        "reverse_se": found.reverse_se,
        "forward": found.forward,
        "forward_se": found.forward_se,
        "laplace": found.laplace,
    }


def _exact(
    exact: Callable[..., Any], task: bayesdd.Task, distilled: bayesdd.Distilled, seed: int, data: Path | None
) -> dict[str, float]:
    """Conjugate models: both posteriors are Gaussians of known mean and covariance."""
    full, small = exact(**_columns(task)), exact(**_weighted(distilled))
    forward, reverse = float(gaussian_mean.kl(full, small)), float(gaussian_mean.kl(small, full))
    return {"reverse": reverse, "reverse_se": 0.0, "forward": forward, "forward_se": 0.0, "laplace": reverse}


def _glm(
    posterior: Callable[..., true_kl.Posterior],
    task: bayesdd.Task,
    distilled: bayesdd.Distilled,
    seed: int,
    data: Path | None,
) -> dict[str, float]:
    full = posterior(**_columns(task), weight=np.ones(task.size))
    return _recorded(true_kl.between(full, posterior(**_weighted(distilled)), np.zeros(task.dim), seed=seed))


def _intercepts(task: bayesdd.Task, distilled: bayesdd.Distilled, seed: int, data: Path | None) -> dict[str, float]:
    posterior = partial(densities.varying_intercepts, groups=task.sites["z"][0])
    full = posterior(**_columns(task), weight=np.ones(task.size))  # type: ignore[arg-type]
    start = np.zeros(task.dim - task.sites["z"][0])
    return _recorded(true_kl.between(full, posterior(**_weighted(distilled)), start, seed=seed))  # type: ignore[arg-type]


def _stan(
    name: str, task: bayesdd.Task, distilled: bayesdd.Distilled, seed: int, data: Path | None
) -> dict[str, float]:
    """Importance sampling, and beside it the forward KL at Stan's draws: mean Delta + log mean exp(-Delta) there."""
    if data is None:
        raise ValueError(f"{name} needs the data folder")
    rows, small = _columns(task), _weighted(distilled)
    # Coordinates in which the design is orthogonal: the raw ones are correlated up to 0.99.
    basis = np.linalg.inv(np.linalg.cholesky(rows["x"].T @ rows["x"] / task.size).T)
    prior = partial(posteriordb.log_prior, half_cauchy=posteriordb.POSTERIORS[name][2])
    full = densities.normal(**rows, weight=np.ones(task.size), log_prior=prior, basis=basis)
    distilled_posterior = densities.normal(**small, log_prior=prior, basis=basis)
    start = np.append(np.linalg.solve(basis, np.linalg.lstsq(rows["x"], rows["y"])[0]), math.log(rows["y"].std()))
    found = true_kl.between(full, distilled_posterior, start, draws=40_000, seed=seed)
    beta, sigma = posteriordb.reference_draws(name, data)
    draws = np.column_stack([np.linalg.solve(basis, beta.T).T, np.log(sigma)])
    delta = full.log_joint(draws) - distilled_posterior.log_joint(draws)
    excess = delta - delta.mean()
    return _recorded(found) | {"stan": float(np.log(np.exp(-excess).mean()))}


def ds1(seed: int, data: Path | None, smoke: bool) -> bayesdd.Task:
    """24,060 rows, 3% positive: covariates whitened, last column 1, unit prior."""
    if data is None:
        raise ValueError("ds1 needs the data folder")
    with np.load(data / "ds1_large.npz") as stored:
        covariates, y = stored["X"][:, :-1], (stored["y"] > 0).astype(float)
    centred = covariates - covariates.mean(0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(centred.T)), centred.T).T
    return bayesdd.Task(logistic_regression.model, {"x": np.column_stack([white, np.ones(len(y))]), "y": y})


def randhie(seed: int, data: Path | None, smoke: bool) -> bayesdd.Task:
    """Visits of the RAND health insurance experiment; every fiftieth row at smoke size."""
    task = poisson_regression.task()
    return task.with_data({name: column[::50] for name, column in task.data.items()}) if smoke else task


def simulated(
    build: Callable[..., bayesdd.Task], settings: dict[str, int], tiny: dict[str, int]
) -> Callable[[int, Path | None, bool], bayesdd.Task]:
    """A task whose data are drawn with the seed, in its full or its tiny size."""
    return lambda seed, data, smoke: build(seed=seed, **(tiny if smoke else settings))


def few_groups(rows: int, seed: int, groups: int = varying_intercepts.GROUPS) -> bayesdd.Task:
    """Varying intercepts of the model's own groups, or of the first few of them."""
    task = varying_intercepts.task(rows=rows, seed=seed)
    if groups == varying_intercepts.GROUPS:
        return task
    kept = task.data["group"] < groups
    rows_kept = {name: column[kept] for name, column in task.data.items()}
    return bayesdd.Task(partial(varying_intercepts.model, groups=groups), rows_kept)


def _posteriordb_case(name: str, parameters: int) -> Case:
    return Case(
        name,
        f"posteriordb {name}, linear, unknown noise",
        3 * parameters,
        3 * parameters,
        lambda seed, data, smoke: posteriordb.task(name, data or Path()),
        partial(_stan, name),
        median=0.02,
        file="posteriordb",
        forward_only=True,
    )


def _ds1_case(size: int, median: float, worst: float, closest: float, published: str = "") -> Case:
    truth, file = partial(_glm, densities.logistic), "ds1_large.npz"
    name, title = f"ds1_{size}", "logistic, ds1"
    return Case(name, title, size, size, ds1, truth, median, worst, published, file, closest=closest)


def _logistic_case(size: int, median: float, worst: float, closest: float, dim: int = 10) -> Case:
    """Simulated; the first size of ten covariates has a tiny version."""
    plain = (size, dim) == (20, 10)
    return Case(
        "logistic" if plain else f"logistic_{dim}_{size}",
        "logistic, simulated",
        size,
        12,
        simulated(logistic_regression.task, {"rows": 10_000, "dim": dim}, {"rows": 300, "dim": 3}),
        partial(_glm, densities.logistic),
        median=median,
        worst=worst,
        closest=closest,
        in_smoke=plain,
    )


def _randhie_case(size: int, median: float, worst: float, closest: float) -> Case:
    plain = size == 20
    return Case(
        "randhie" if plain else f"randhie_{size}",
        "Poisson, randhie",
        size,
        20,
        randhie,
        partial(_glm, densities.poisson),
        median=median,
        worst=worst,
        closest=closest,
        in_smoke=plain,
    )


_WIDE = {"rows": 1000, "dim": 200}
_LINE = {"rows": 2000, "dim": 101}

CASES = [
    Case(
        "gaussian_mean",
        "Gaussian mean",
        1,
        1,
        simulated(gaussian_mean.task, _WIDE, {"rows": 60, "dim": 6}),
        partial(_exact, gaussian_mean.exact),
        median=1e-6,
        published="4e-9 to 7e-4 (closed-form projector, M = 10); 36-134 (sampled)",
    ),
    Case(
        "linear_regression",
        "linear, known noise",
        101,
        6,
        simulated(linear_regression.task, _LINE, {"rows": 80, "dim": 5}),
        partial(_exact, linear_regression.exact),
        median=1e-3,
        published="1437 at M = 100",
    ),
    _ds1_case(13, 0.05, 0.5, 4e-3),
    _ds1_case(20, 0.02, 0.05, 2.3e-3),
    _ds1_case(50, 0.005, 0.02, 2e-5, "42 (and 34 at M = 100)"),
    _logistic_case(20, 0.005, 0.02, 2.4e-4),
    _logistic_case(40, 0.005, 0.02, 1e-6),
    _logistic_case(100, 0.05, 0.15, 1e-2, dim=50),
    _randhie_case(20, 0.05, 0.2, 1.2e-4),
    _randhie_case(30, 0.05, 0.2, 1e-8),
    Case(
        "varying_intercepts",
        "varying intercepts, 100 groups",
        200,
        8,
        simulated(few_groups, {"rows": 10_000}, {"rows": 4000, "groups": 4}),
        _intercepts,
        median=0.1,
        worst=0.5,
        published="none can",
    ),
    _posteriordb_case("nes1992", 10),
    _posteriordb_case("kidiq", 5),
    _posteriordb_case("earnings", 5),
]
