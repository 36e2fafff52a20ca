r"""Posteriors of posteriordb that have one plate of rows: distilled, against Stan's reference draws.

A posterior without reference draws is compared with bayesdd's own draws given all rows. Stan's programs of nes1992,
earnings, mesquite, wells and nes_logit leave coefficients (and noise) without a prior; bayesdd refuses improper ones,
and a normal of scale 1000 stands for them, which moves none by 1e-3 of its sd. Not tried: garch and hmm_example, whose
one series is one row; radon_all, election88 and GLMM, whose hundreds of groups need a thousand rows.

Source: Magnusson et al., "posteriordb: Testing, Benchmarking and Developing Bayesian Inference Algorithms", AISTATS
2025. The data are not part of this project: ``--data DIR`` names a folder that holds ``posteriordb/``.
"""

from __future__ import annotations

import json
import math
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
from torch import Tensor

import bayesdd
from studies.shared import cells, posteriordb
from studies.shared.true_kl import Array

WIDE = posteriordb.WIDE
MEAN, SPREAD = 0.05, 0.03  # sds and relative difference of sds within which a posterior is met
CLAIM = f"means and sds of posteriordb's posteriors within {MEAN} sd and {SPREAD:.0%}"
CHAINS, DRAWS = 4, 2500  # as many draws as Stan's reference has


@dataclass(frozen=True)
class Reference:
    """One posterior.

    Attributes:
        name: Its data set, as posteriordb names it.
        title: As in the table.
        task: What the file of its data holds -> task.
        size: Synthetic rows M.
        draws: The file of Stan's draws; empty where there are none. Sites have the names that they have there.
    """

    name: str
    title: str
    task: Callable[[dict[str, Any]], bayesdd.Task]
    size: int
    draws: str = ""


def measure(name: str, seed: str | int, data: str) -> dict[str, Any]:
    """One cell: distils, draws, and compares every parameter's mean and sd with the reference.

    Args:
        name: A posterior.
        seed: Seed of the distillation and of the draws.
        data: Folder that holds ``posteriordb/``.
    """
    cells.set_threads()
    one = next(one for one in REFERENCES if one.name == name)
    folder = Path(data) / "posteriordb"
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bayesdd.CertificateWarning)  # the verdict is in the table
        task = one.task(_unzipped(folder / "data" / "data" / f"{name}.json.zip"))
        distilled = bayesdd.distill(task, size=one.size, seed=int(seed), progress=False)
    seconds = time.process_time() - begin
    ours = _drawn(task, distilled, int(seed))
    if one.draws:
        stored = _unzipped(folder / "reference_posteriors" / "draws" / "draws" / f"{one.draws}.json.zip")
        theirs = {parameter: np.array([chain[parameter] for chain in stored]) for parameter in stored[0]}
    else:
        theirs = _drawn(task, None, int(seed) + 1)
    assert distilled.certificate is not None  # distill attaches one
    return {
        "rows": task.size,
        "dim": task.dim,
        "size": len(distilled),
        "seconds": seconds,
        "ok": distilled.certificate.ok,
        "parameters": {parameter: compared(ours[parameter], theirs[parameter]) for parameter in theirs},
    }


def compared(ours: Array, theirs: Array) -> dict[str, float]:
    """Two sets of draws of one parameter, ``(chains, draws)`` each.

    Returns:
        ``mean``: difference of the means in the reference's sds; ``spread``: ratio of the sds minus one; each with its
        Monte Carlo standard error, ``mean_se`` and ``spread_se``.
    """
    shares = [1 / _effective(values, "mean") for values in (ours, theirs)]
    spread = [1 / _effective(values, "sd") for values in (ours, theirs)]
    sd = float(theirs.std())
    return {
        "mean": float(ours.mean() - theirs.mean()) / sd,
        "mean_se": math.sqrt(sum(shares)),
        "spread": float(ours.std()) / sd - 1,
        "spread_se": math.sqrt(sum(spread) / 2),
    }


def row(one: Reference, cell: dict[str, Any]) -> dict[str, Any]:
    """One row of the table; ``met``: all means and sds are within the limits, beyond two Monte Carlo errors."""
    shown = {"posterior": one.title, "reference": "Stan" if one.draws else "all rows"}
    if "parameters" not in cell:
        return shown | {"certified": cell["error"], "met": False}
    found = cell["parameters"].values()
    worst = {key: max(found, key=lambda p: abs(p[key]) - 2 * p[f"{key}_se"]) for key in ("mean", "spread")}
    excess = {key: abs(p[key]) - 2 * p[f"{key}_se"] for key, p in worst.items()}
    return shown | {
        "N": cell["rows"],
        "P": cell["dim"],
        "M": cell["size"],
        "seconds": f"{cell['seconds']:.1f}",
        "certified": "yes" if cell["ok"] else "no",
        "worst mean (sds)": f"{worst['mean']['mean']:+.3f} ± {worst['mean']['mean_se']:.3f}",
        "worst sd": f"{worst['spread']['spread']:+.1%} ± {worst['spread']['spread_se']:.1%}",
        "met": excess["mean"] <= MEAN and excess["spread"] <= SPREAD,
    }


def _drawn(task: bayesdd.Task, distilled: bayesdd.Distilled | None, seed: int) -> dict[str, Array]:
    """Draws by the names that Stan gives parameters, ``(chains, draws)`` each."""
    posterior = bayesdd.sample(task, distilled, draws=DRAWS, chains=CHAINS, seed=seed).posterior
    found = {}
    for site in posterior.data_vars:
        values = np.asarray(posterior[site])
        for place in np.ndindex(values.shape[2:]):
            name = f"{site}[{','.join(str(index + 1) for index in place)}]" if place else str(site)
            found[name] = values[(slice(None), slice(None), *place)]
    return found


def _effective(values: Array, method: str) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.23 announces 1.x on import
        import arviz
    return min(float(arviz.ess(values, method=method)), values.size)


def _unzipped(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(archive.namelist()[0]))


def linear(x: Tensor, y: Tensor | None = None, *, wide: float = WIDE, noise: float = WIDE) -> None:
    """Linear regression: normal coefficients, half-normal noise."""
    beta = pyro.sample("beta", dist.Normal(0.0, wide).expand([x.shape[-1]]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(noise))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


def logistic(x: Tensor, y: Tensor | None = None) -> None:
    """Logistic regression with coefficients nearly without a prior."""
    beta = pyro.sample("beta", dist.Normal(0.0, WIDE).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ beta), obs=y)


def five_lags(lags: Tensor, y: Tensor | None = None) -> None:
    """AR(5): one row a time, its five predecessors the covariates."""
    alpha = pyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 10.0).expand([5]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    with pyro.plate("data", len(lags)):
        pyro.sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y)


def schools(school: Tensor, error: Tensor, y: Tensor | None = None) -> None:
    """Eight schools, non-centred."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
    theta = pyro.deterministic("theta", mu + tau * z)
    with pyro.plate("data", len(school)):
        pyro.sample("y", dist.Normal(theta[school], error), obs=y)


def radon(county: Tensor, uranium: Tensor, floor: Tensor, y: Tensor | None = None, *, counties: int) -> None:
    """Radon in houses, intercepts of counties non-centred, uranium given house by house."""
    sigma_alpha = pyro.sample("sigma_alpha", dist.HalfNormal(1.0))
    sigma_y = pyro.sample("sigma_y", dist.HalfNormal(1.0))
    mu_alpha = pyro.sample("mu_alpha", dist.Normal(0.0, 10.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([counties]).to_event(1))
    mean = mu_alpha + sigma_alpha * z[county] + beta[0] * uranium + beta[1] * floor
    with pyro.plate("data", len(county)):
        pyro.sample("y", dist.Normal(mean, sigma_y), obs=y)


def _columns(d: dict[str, Any], *names: str, log: tuple[str, ...] = ()) -> Array:
    parts = [np.asarray(d[name], dtype=float) for name in names]
    logs = [np.log(part) if name in log else part for name, part in zip(names, parts, strict=True)]
    return np.column_stack([np.ones(len(parts[0])), *logs])


def _mesquite(d: dict[str, Any]) -> bayesdd.Task:
    sizes = ("diam1", "diam2", "canopy_height", "total_height", "density")
    return bayesdd.Task(linear, {"x": _columns(d, *sizes, "group", log=sizes), "y": np.log(d["weight"])})


def _lags(d: dict[str, Any]) -> bayesdd.Task:
    y, order = np.asarray(d["y"]), d["K"]
    lags = np.column_stack([y[order - 1 - k : len(y) - 1 - k] for k in range(order)])
    return bayesdd.Task(five_lags, {"lags": lags, "y": y[order:]})


def _schools(d: dict[str, Any]) -> bayesdd.Task:
    y, error = (np.asarray(d[name], dtype=float) for name in ("y", "sigma"))
    return bayesdd.Task(schools, {"school": np.arange(8), "error": error, "y": y})


def _wells(d: dict[str, Any]) -> bayesdd.Task:
    dist100, arsenic, educ4 = (
        (values - values.mean()) / unit
        for values, unit in ((np.asarray(d[name], dtype=float), unit) for name, unit in UNITS.items())
    )
    x = np.column_stack([np.ones(len(educ4)), dist100, arsenic, educ4, dist100 * arsenic, dist100 * educ4])
    return bayesdd.Task(logistic, {"x": np.column_stack([x, arsenic * educ4]), "y": np.asarray(d["switched"])})


UNITS = {"dist": 100.0, "arsenic": 1.0, "educ": 4.0}


def _radon(d: dict[str, Any]) -> bayesdd.Task:
    columns = {"uranium": d["log_uppm"], "floor": d["floor_measure"], "y": d["log_radon"]}
    county = np.asarray(d["county_idx"]) - 1
    floats = {name: np.asarray(column, dtype=float) for name, column in columns.items()}
    return bayesdd.Task(partial(radon, counties=d["J"]), {"county": county, **floats})


def _regression(name: str) -> Callable[[dict[str, Any]], bayesdd.Task]:
    _, columns, half_cauchy = posteriordb.POSTERIORS[name]
    model = partial(posteriordb.model, half_cauchy=half_cauchy)
    return lambda d: bayesdd.Task(model, dict(zip(("x", "y"), columns(d), strict=True)))


REFERENCES = (
    *(Reference(name, name, _regression(name), 30, posteriordb.POSTERIORS[name][0]) for name in posteriordb.POSTERIORS),
    Reference(
        "sblrc",
        "sblrc, linear",
        lambda d: bayesdd.Task(partial(linear, wide=10.0, noise=10.0), {"x": np.array(d["X"]), "y": np.array(d["y"])}),
        20,
        "sblrc-blr",
    ),
    Reference("mesquite", "mesquite, log-log", _mesquite, 24, "mesquite-logmesquite"),
    Reference("arK", "AR(5)", _lags, 24, "arK-arK"),
    Reference("eight_schools", "eight schools, non-centred", _schools, 8, "eight_schools-eight_schools_noncentered"),
    Reference("wells_data", "wells, logistic with interactions", _wells, 24),
    Reference(
        "nes_logit_data",
        "nes, logistic",
        lambda d: bayesdd.Task(logistic, {"x": _columns(d, "income"), "y": np.asarray(d["vote"])}),
        12,
    ),
    Reference("radon_mn", "radon in Minnesota, 85 counties", _radon, 180),
)
