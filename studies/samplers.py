"""How fast do 50 distilled rows give effective draws: bayesdd's HMC against Pyro's NUTS, on the same rows?

Question: what does the vectorised sampler buy where the data are tiny and the overhead of every step decides?
Claim: at least ten times the effective draws per second (the least over parameters, warm-up included in the seconds)
of Pyro's NUTS on ``weighted(task, distilled)``, R-hat at most 1.01, and the same posterior: means within four Monte
Carlo standard errors.
How it could fail: a sampler that looks fast because its chains agree on the wrong place (the means are compared), or
that is timed without what it needs to warm up.
Cost: about two minutes on one thread.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from pyro.infer import MCMC, NUTS

import bayesdd
from models import logistic_regression
from studies.shared import commands, stamps, tables
from studies.shared.cells import RESULTS


def main(*, smoke: bool = False, results: str | Path = RESULTS, threads: int = 1) -> pd.DataFrame:
    """Runs both samplers on the same distilled rows, prints the table and writes it to ``results/samplers.md``.

    Args:
        smoke: Few draws; nothing is written.
        results: Folder of the table.
        threads: Threads of torch.

    Returns:
        One row a sampler: seconds, least bulk ESS, ESS a second, largest R-hat, largest error of the mean in Monte
        Carlo standard errors; ``met`` says whether the claim holds (at smoke size only that the means agree).
    """
    torch.set_num_threads(threads)
    task = logistic_regression.task(rows=500 if smoke else 10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bayesdd.CertificateWarning)
        distilled = bayesdd.distill(task, 15 if smoke else 50, seed=0, progress=False)
    draws = 200 if smoke else 1000
    begin = time.perf_counter()
    idata = bayesdd.sample(task, distilled, draws=draws, chains=4, seed=0, device="cpu")
    ours = _summary(np.asarray(idata.posterior["w"]), time.perf_counter() - begin)
    begin = time.perf_counter()
    theirs = _summary(_nuts(bayesdd.weighted(task, distilled), draws // 2), time.perf_counter() - begin)
    table = pd.DataFrame([ours, theirs], index=["bayesdd.inference.hmc, 4 chains", "Pyro NUTS, 1 chain"])
    apart = np.abs(ours["mean"] - theirs["mean"]) / np.hypot(ours["error"], theirs["error"])
    table = table.drop(columns=["mean", "error"])
    table["worst difference of means (MCSE)"] = float(apart.max())
    ratio = ours["ESS / s"] / theirs["ESS / s"]
    met = bool(apart.max() < 4 and (smoke or (ratio >= 10 and ours["R-hat"] <= 1.01)))
    table["met"] = met
    tables.report(
        None if smoke else Path(results) / "samplers.md",
        table.reset_index(names="sampler"),
        floats=".4g",
        notes=[
            f"Ratio of effective draws a second: {ratio:.0f}. {len(distilled)} rows, {task.dim} parameters.",
            stamps.last_line(stamps.machine(threads), [stamps.source_hash("studies.samplers")]),
        ],
    )
    return table


def _nuts(model: Any, draws: int) -> np.ndarray[Any, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        run = MCMC(NUTS(model), num_samples=draws, warmup_steps=draws, disable_progbar=True)
        run.run()
    return run.get_samples(group_by_chain=True)["w"].numpy()


def _summary(values: np.ndarray[Any, Any], seconds: float) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.23 announces 1.x on import
        import arviz
    data = xr.Dataset({"w": (("chain", "draw", "parameter"), values.astype(float))})
    ess = np.asarray(arviz.ess(data)["w"])
    rhat = float(np.asarray(arviz.rhat(data)["w"]).max()) if len(values) > 1 else float("nan")
    flat = values.reshape(-1, values.shape[-1])
    return {
        "seconds": seconds,
        "least ESS": float(ess.min()),
        "ESS / s": float(ess.min()) / seconds,
        "R-hat": rhat,
        "mean": flat.mean(0),
        "error": flat.std(0) / np.sqrt(ess),
    }


if __name__ == "__main__":
    commands.run(main)
