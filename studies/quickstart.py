"""The main job, as ``make demo`` runs it: 20,190 rows of real data become 20, and the posterior stays where it was.

Question: does the posterior of 20 weighted synthetic rows agree with that of all rows, as read off by means, standard
deviations and a certificate in nats, for a Poisson regression on the RAND health insurance visits?
Claim: every posterior mean moves by less than a fifth of its standard deviation, every standard deviation by less than
a tenth, and the certificate is ok.
How it could fail: visits are overdispersed and skewed; synthetic rows that match gradients only at the mode would give
a posterior of the right place and the wrong width.
Cost: under three minutes on two cores; nothing is downloaded. Writes distilled.nc, posterior_distilled.nc,
posterior_full.nc, figure.png and table.md to results/quickstart/; studies/results/quickstart.md is the committed copy.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import bayesdd
from bayesdd.posterior.arviz import dataset, write
from models import poisson_regression
from studies.shared import commands, figures, stamps, tables

NAMES = ["constant", "lncoins", "idp", "lpi", "fmde", "physlm", "disea", "hlthg", "hlthf", "hlthp"]
BLUE, ORANGE, GREY = "#1f4e79", "#d95f02", "#666666"
RULE = "-" * 104


def main(
    *, smoke: bool = False, results: str | Path = "results/quickstart", size: int = 20, seed: int = 0
) -> pd.DataFrame:
    """Distils, certifies, samples both posteriors and sets them side by side.

    Args:
        smoke: 600 rows and a few hundred draws: seconds, to see that everything runs.
        results: Folder to write to.
        size: Number of synthetic rows.
        seed: Seed of everything.

    Returns:
        One row a coefficient: mean, sd, R-hat and ESS of both posteriors, the shift of the mean in sds and the ratio of
        the sds; ``attrs`` holds the certificate's verdict and the seconds.
    """
    out = Path(results)
    out.mkdir(parents=True, exist_ok=True)
    chains, draws = (2, 300) if smoke else (4, 1000)
    task = poisson_regression.task()
    if smoke:
        picked = np.random.default_rng(seed).choice(task.size, 600, replace=False)
        task = task.with_data({name: column[picked] for name, column in task.data.items()})

    print(f"\n  bayesdd quick start: RAND health insurance visits, Poisson regression\n  {RULE}")
    print(f"  {task.size:,} rows, {task.dim} coefficients -> {size} weighted synthetic rows\n", flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bayesdd.CertificateWarning)  # the verdict is printed below
        distilled, distil_seconds = _timed(lambda: bayesdd.distill(task, size=size, seed=seed))
    certificate, certify_seconds = _timed(lambda: bayesdd.certify(task, distilled, seed=seed + 1))
    print(f"\n  distilled in {distil_seconds:.1f} s; certified from fresh draws in {certify_seconds:.1f} s")
    print("  " + str(certificate).replace("\n", "\n  ") + "\n")

    print(f"  sampling {chains} chains of {draws:,} draws from each posterior ...", flush=True)
    small, small_seconds = _timed(lambda: bayesdd.sample(task, distilled, draws=draws, chains=chains, seed=seed))
    full, full_seconds = _timed(lambda: bayesdd.sample(task, draws=draws, chains=chains, seed=seed + 1))

    table = _side_by_side(full, small)
    table.attrs = {
        "ok": certificate.ok,
        "kl_reverse": certificate.kl_reverse,
        "kl_forward": certificate.kl_forward,
        "seconds": {
            "distil": distil_seconds,
            "certify": certify_seconds,
            "distilled": small_seconds,
            "full": full_seconds,
        },
    }
    _show(table, task.size, size)
    distilled.to_netcdf(out / "distilled.nc")
    write(small, out / "posterior_distilled.nc")
    write(full, out / "posterior_full.nc")
    _figure(full, small, task.size, size, out / "figure.png")
    tables.report(
        out / "table.md",
        table.reset_index(names="coefficient"),
        floats=".5g",
        notes=[
            f"{task.size:,} rows and {size}: mean, sd, R-hat and ESS of each posterior; shift in sds, ratio of sds.",
            f"KL(distilled, full) {certificate.kl_reverse:.2g} nats, KL(full, distilled) {certificate.kl_forward:.2g}; "
            f"distilled in {distil_seconds:.1f} s, certified anew in {certify_seconds:.1f} s; {chains} x {draws:,} "
            f"draws of {size} rows in {small_seconds:.1f} s, of all in {full_seconds:.1f} s.",
            stamps.last_line(stamps.machine(torch.get_num_threads()), [stamps.source_hash("studies.quickstart")]),
        ],
    )
    print(f"\n  wrote {out}/: distilled.nc, posterior_distilled.nc, posterior_full.nc, figure.png\n")
    return table


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    return run(), time.perf_counter() - begin


def _side_by_side(full: Any, small: Any) -> pd.DataFrame:
    """Means, sds, R-hat and ESS of the coefficients under both posteriors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.23 announces 1.x on import
        import arviz
    columns = {}
    for prefix, idata in (("full", full), ("distilled", small)):
        draws = dataset({"w": idata.posterior["w"].values})  # a plain Dataset: the same for ArviZ 0.23 and 1.x
        columns[f"{prefix}_mean"] = draws["w"].mean(("chain", "draw")).values
        columns[f"{prefix}_sd"] = draws["w"].std(("chain", "draw")).values
        columns[f"{prefix}_rhat"] = arviz.rhat(draws)["w"].values
        columns[f"{prefix}_ess"] = arviz.ess(draws)["w"].values
    table = pd.DataFrame(columns, index=NAMES)
    table["shift"] = (table.distilled_mean - table.full_mean) / table.full_sd
    table["sd_ratio"] = table.distilled_sd / table.full_sd
    return table


def _show(table: pd.DataFrame, rows: int, size: int) -> None:
    seconds = table.attrs["seconds"]
    print(f"\n  {'':<10}{f'all {rows:,} rows':^36}{f'{size} synthetic rows':^36}")
    head = f"{'mean':>9}{'sd':>9}{'R-hat':>9}{'ESS':>8} "
    print(f"  {'':<10}{head}{head}{'shift/sd':>11}{'sd ratio':>10}\n  {RULE}")
    for name, r in table.iterrows():
        halves = "".join(
            f"{r[f'{k}_mean']:>9.4f}{r[f'{k}_sd']:>9.4f}{r[f'{k}_rhat']:>9.4f}{r[f'{k}_ess']:>8.0f} "
            for k in ("full", "distilled")
        )
        print(f"  {name:<10}{halves}{r['shift']:>+11.3f}{r['sd_ratio']:>10.3f}")
    print(f"  {RULE}")
    faster = seconds["full"] / seconds["distilled"]
    both = f"{seconds['full']:>9.1f}{'':>27}{seconds['distilled']:>9.1f}"
    print(f"  {'seconds':<10}{both}{'':>10}({faster:.1f} times faster)")


def _figure(full: Any, small: Any, rows: int, size: int, path: Path) -> None:
    """Marginals of every coefficient, both posteriors overlaid."""
    pair = [np.asarray(idata.posterior["w"].values).reshape(-1, len(NAMES)) for idata in (full, small)]
    figure, axes = figures.subplots(2, 5, (13, 5))
    for i, axis in enumerate(axes.flat):
        both = np.concatenate([draws[:, i] for draws in pair])
        low, high = np.quantile(both, [0.0005, 0.9995])
        bins = np.linspace(low, high, 45)
        axis.hist(
            pair[0][:, i], bins, density=True, color=BLUE, alpha=0.35, label=f"all {rows:,} rows", edgecolor="none"
        )
        axis.hist(
            pair[1][:, i], bins, density=True, color=ORANGE, histtype="step", lw=1.6, label=f"{size} synthetic rows"
        )
        axis.set_title(NAMES[i], fontsize=11)
        axis.set_yticks([])
        axis.tick_params(labelsize=8, colors=GREY)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.locator_params(axis="x", nbins=4)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(
        "Doctor visits and insurance terms: posterior of the coefficients (log rate per standard deviation)"
    )
    figures.write(figure, path)


if __name__ == "__main__":
    commands.run(main)
