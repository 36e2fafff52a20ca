"""The speed study's table."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

FASTER, MEANS, SDS, NATS = 10.0, 0.05, 0.05, 0.01  # what is claimed
TITLES = {
    "distilled": "(a) distill + sample",
    "numpyro_nuts": "(b) NumPyro NUTS",
    "pyro_nuts": "(c) Pyro NUTS",
    "numpyro_hmcecs": "(d) NumPyro HMCECS",
    "laplace": "(e) Laplace, uncorrected",
    "weighted_laplace": "(g) Laplace, weighted by all rows",
    "bare_sweep": "(f) one sweep, 1,000 particles",
}


def versions(*names: str) -> str:
    """Names and versions of packages."""
    return ", ".join(f"{name} {version(name)}" for name in names)


def summary(measured: dict[str, dict[str, Any]], claim: tuple[int, int] | None) -> pd.DataFrame:
    """One row a cell.

    Args:
        measured: ``ROWS-COVARIATES-METHOD`` -> what was measured, the exact moments under the method ``truth``.
        claim: Rows and covariates at which the claim is made; None leaves ``met`` out.
    """
    found = []
    for name, cell in measured.items():
        rows, dim, method = name.split("-")
        if method == "truth":
            continue
        row = {"N": int(rows), "d": int(dim), "method": method, "error": cell.get("error", "")}
        numbers = ("seconds", "compiled", "processor", "sweeps", "gradients", "memory", "distill", "sample")
        row |= {key: cell.get(key, np.nan) for key in (*numbers, "kl_reverse", "kl_forward", "scaled")}
        if "ess" in cell:
            row["ESS / s"] = cell["ess"] / cell["seconds"]
        truth = measured.get(f"{rows}-{dim}-truth", {})
        for prefix, moments in (("", cell), ("own ", cell.get("own", {}))):
            if "mean" in moments and "mean" in truth:
                sd = np.array(truth["sd"])
                row[f"{prefix}mean error"] = float(np.abs((np.array(moments["mean"]) - truth["mean"]) / sd).max())
                row[f"{prefix}sd error"] = float(np.abs(np.array(moments["sd"]) / sd - 1).max())
        row["ok"] = cell.get("ok", np.nan)
        found.append(row)
    made = pd.DataFrame(found)
    made.attrs["notes"] = _legend(measured, made)
    if claim is not None:
        made["met"], said = _met(made, *claim)
        made.attrs["notes"] += said
    return made


def _met(made: pd.DataFrame, rows: int, dim: int) -> tuple[bool, list[str]]:
    """Whether the claim holds, and what it compares."""
    there = made[made.N.eq(rows) & made.d.eq(dim)].set_index("method")
    if not {"distilled", "numpyro_nuts", "bare_sweep"} <= set(there[there.error == ""].index):
        return False, [f"claim: not all of (a), (b), (f) were measured at N = {rows:,}, d = {dim}"]
    ours = there.loc["distilled"]
    ratio = there.seconds["numpyro_nuts"] / ours.seconds
    sweep = ours.distill / there.seconds["bare_sweep"]
    checks = [
        (f"(b) takes {ratio:.1f} times as long as (a), claimed {FASTER:g}", ratio >= FASTER),
        (f"the distillation takes {sweep:.2f} times as long as (f), claimed 1", sweep <= 1),
        (f"worst mean {ours['own mean error']:.4f} sds off, claimed {MEANS:g}", ours["own mean error"] <= MEANS),
        (f"worst sd {ours['own sd error']:.2%} off, claimed {SDS:.0%}", ours["own sd error"] <= SDS),
        (
            f"KLs {ours.kl_reverse:.1e} and {ours.kl_forward:.1e} nats, claimed {NATS:g}, certified",
            bool(ours.ok) and max(ours.kl_reverse, ours.kl_forward) <= NATS,
        ),
    ]
    said = [f"claim at N = {rows:,}, d = {dim}: {text}: {'yes' if good else '**no**'}" for text, good in checks]
    return all(good for _, good in checks), said


def slopes(made: pd.DataFrame) -> dict[tuple[str, int], float]:
    """Least-squares slope of log seconds against log N, by method and covariates, over 100,000 rows or more."""
    found = {}
    for (method, dim), group in made[(made.error == "") & (made.N >= 100_000)].groupby(["method", "d"]):
        if len(group) > 1:
            found[str(method), int(dim)] = float(np.polyfit(np.log(group.N), np.log(group.seconds), 1)[0])
    return found


def _legend(measured: dict[str, dict[str, Any]], made: pd.DataFrame) -> list[str]:
    truths = [cell for name, cell in measured.items() if name.endswith("-truth") and "mean_se" in cell]
    worst = [max((cell[key] for cell in truths), default=np.nan) for key in ("mean_se", "sd_se")]
    steep = ", ".join(f"{TITLES[m]} d = {d}: {slope:.2f}" for (m, d), slope in slopes(made).items())
    return [
        "seconds: wall, from rows in memory to draws, compilation left out and shown beside (of (a) what the first of "
        "two runs takes longer); * scaled up from a fifth of the iterations. CPU s: of all that, compilation and both "
        "runs of (a) included, not scaled. peak: of the whole process, data and imports included.",
        "sweeps, gradients: passes over all rows at one draw, values and gradients (a Hessian counts d); those of (c) "
        "and (d) are not counted.",
        "(a) 4 x 1,000 draws; (b), (c), (d) one chain, 500 of warm-up and 500 kept, (b) and (d) in float32, JAX's "
        "default; (d) 1,000 rows a step; (e) 4,000 independent draws, whose ESS says nothing of their error; (g) "
        "those, importance-weighted and resampled, ESS by the weights.",
        "mean error: worst |mean - exact| in exact sds; sd error: worst relative error of an sd; both of the draws, "
        "Monte Carlo error included; the claims below are of the distilled posterior itself. Exact: antithetic "
        f"importance-corrected Laplace, standard errors at most {worst[0]:.0e} (means) and {worst[1]:.0e} (sds).",
        f"slope of log seconds against log N from 1e5 on: {steep or 'not measured'}",
    ]


def shown(made: pd.DataFrame) -> pd.DataFrame:
    """The table as it is printed."""
    rows = []
    for row in made.sort_values(["d", "N"], kind="stable").to_dict("records"):
        head = {"N": row["N"], "d": row["d"], "method": TITLES[row["method"]]}
        if row["error"]:
            rows.append(head | {"seconds": f"failed: {row['error']}"})
            continue
        star = "*" if row["scaled"] > 1 else ""
        kl = "" if np.isnan(row["kl_reverse"]) else f"{row['kl_reverse']:.1e} ({row['kl_forward']:.1e})"
        rows.append(
            head
            | {
                "seconds": f"{row['seconds']:.2f}{star}",
                "compiled": _number(row["compiled"], ".1f"),
                "CPU s": f"{row['processor']:.1f}",
                "sweeps": _number(row["sweeps"], ",.0f"),
                "gradients": _number(row["gradients"], ",.0f"),
                "peak GiB": f"{row['memory']:.2f}",
                "ESS / s": _number(row.get("ESS / s"), ",.0f"),
                "mean error": _number(row.get("mean error"), ".3f"),
                "sd error": _number(row.get("sd error"), ".1%"),
                "distill s": _number(row["distill"], ".2f"),
                "sample s": _number(row["sample"], ".2f"),
                "KL, reverse (forward)": kl,
            }
        )
    return pd.DataFrame(rows)


def _number(value: float | None, form: str) -> str:
    return "" if value is None or np.isnan(value) or value == 0 else format(value, form)
