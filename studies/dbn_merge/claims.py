"""What ``dbn_merge`` claims, checked on its records: one row a claim, met or not met."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

Claim = dict[str, Any]
METRIC = "predictive"


def checked(records: pd.DataFrame) -> pd.DataFrame:
    """Checks all claims for which there are records.

    Args:
        records: One row a cell, method, M and structure, with the columns of ``records.Records`` and ``kind``, ``T``,
            ``seed``.

    Returns:
        Columns ``claim``, ``bound``, ``measured`` (the worst), ``where`` (it was worst), ``met``.
    """
    found: list[Claim] = []
    final = records[records["step"].isna()] if "step" in records else records
    for check in (_given, _close, _large, _learned, _categorical, _union, _coverage):
        found += list(check(final))
    return pd.DataFrame(found, columns=["claim", "bound", "measured", "where", "met"])


def wide(records: pd.DataFrame, kind: str, structure: str) -> pd.DataFrame:
    """Nats of the posterior predictive: rows (T, seed), columns (method, M)."""
    mine = records[(records["kind"] == kind) & (records["structure"] == structure)]
    return mine.pivot_table(index=["T", "seed"], columns=["method", "M"], values=METRIC)


def gap(table: pd.DataFrame, size: int, against: str, against_size: int = 0) -> pd.Series:
    """Distilled rows' nats above another method's, by (T, seed); empty where either is missing."""
    pair = ("distilled", size), (against, against_size)
    if not all(column in table for column in pair):
        return pd.Series(dtype=float)
    return (table[pair[0]] - table[pair[1]]).dropna()


def _given(records: pd.DataFrame) -> Iterator[Claim]:
    table = wide(records, "given", "given")
    for size in (5, 10, 20):
        yield from _worst(
            f"edges given, M = {size}: distilled above the clean subsample of {size}, every T and seed",
            gap(table, size, "clean subsample", size),
            0.0,
        )
    yield from _worst(
        "edges given, M = 50: distilled above the clean subsample of 50, every T, mean over seeds",
        _over_seeds(gap(table, 50, "clean subsample", 50)),
        0.0,
    )


def _close(records: pd.DataFrame) -> Iterator[Claim]:
    table = wide(records, "given", "given")
    for size, bound, least in ((2, 0.1, 5), (5, 0.03, 2), (10, 0.03, 2)):
        mean = _over_seeds(gap(table, size, "all sources"))
        yield from _worst(
            f"edges given, M = {size}: distilled against all sources' posterior, T >= {least}, mean over seeds",
            mean[mean.index >= least],
            -bound,
        )


def _large(records: pd.DataFrame) -> Iterator[Claim]:
    table = wide(records, "large", "given")
    for size in (10, 100):
        mean = _over_seeds(gap(table, size, "complete clean set"))
        yield from _worst(
            f"sources four times as large, M = {size}: distilled against the complete clean set, T >= 3, mean",
            mean[mean.index >= 3],
            -0.1,
        )


def _learned(records: pd.DataFrame) -> Iterator[Claim]:
    table = wide(records, "learned", "learned")
    for size in (2, 5, 10, 20):
        above = gap(table, size, "clean subsample", size)
        if len(above):
            share = (above > 0).groupby("T").mean()
            yield {
                "claim": f"edges learned, M = {size}: distilled above the clean subsample of {size}, every T",
                "bound": "4 of 5 seeds",
                "measured": f"{share.min():.0%} of the seeds",
                "where": f"T = {share.idxmin()}",
                "met": bool(share.min() >= 0.8),
            }
    for size in (50, 100):
        yield from _worst(
            f"edges learned, M = {size}: distilled against the clean subsample of {size}, every T, mean over seeds",
            _over_seeds(gap(table, size, "clean subsample", size)),
            -0.15,
        )


def _categorical(records: pd.DataFrame) -> Iterator[Claim]:
    table = wide(records, "categorical", "given")
    if not len(table):
        return
    size = 50 if ("distilled", 50) in table else max(m for method, m in table if method == "distilled")
    yield from _worst(
        f"categorical, M = {size}: distilled against all sources' posterior, mean over seeds",
        _over_seeds(gap(table, size, "all sources")),
        -0.1,
    )
    most = max(m for method, m in table if method == "clean subsample")
    yield from _worst(
        f"categorical, M = {size}: distilled above the clean subsample of {most} (one source's number of sequences)",
        _over_seeds(gap(table, size, "clean subsample", most)),
        0.0,
    )


def _union(records: pd.DataFrame) -> Iterator[Claim]:
    mine = records[records["kind"] == "union"]
    if len(mine) and mine["rounds"].max() > 1:  # sources can conflict: nothing is claimed of a single round
        mine = mine[mine["rounds"] == mine["rounds"].max()]
        for method, part in mine.groupby("method"):
            worst = part.loc[part["kl_reverse"].idxmax()]
            kept = "rows as noisy as the sources'" if "kept" in method else "rows without noise"
            yield {
                "claim": f"union of the sources' own distilled sets, {kept}: reverse KL to the joint posterior",
                "bound": "at most 0.05 nats",
                "measured": f"{worst['kl_reverse']:.3f} nats (standard error {worst['kl_reverse_se']:.3f})",
                "where": f"seed {worst['seed']}, {worst['M']} rows, {worst['rounds']:.0f} rounds",
                "met": bool(worst["kl_reverse"] <= 0.05),
            }


def _coverage(records: pd.DataFrame) -> Iterator[Claim]:
    mine = records[records["kind"] == "coverage"]
    for method, part in mine.groupby("method") if len(mine) else ():
        share = part["inside"].sum() / part["of"].sum()
        yield {
            "claim": f"coverage of 90% intervals, {method}, {len(part)} replications",
            "bound": "85% to 95%",
            "measured": f"{share:.1%}",
            "where": "",
            "met": bool(0.85 <= share <= 0.95),
        }


def _over_seeds(series: pd.Series) -> pd.Series:
    return series.groupby("T").mean() if len(series) else series


def _worst(claim: str, series: pd.Series, bound: float) -> Iterator[Claim]:
    if not len(series):
        return
    worst = series.idxmin()
    place = f"T = {worst[0]}, seed {worst[1]}" if isinstance(worst, tuple) else f"T = {worst}"
    yield {
        "claim": claim,
        "bound": f"at least {bound:+g} nats" if bound else "above 0",
        "measured": f"{series.min():+.3f} nats",
        "where": place,
        "met": bool(series.min() >= bound),
    }


def means(records: pd.DataFrame, kind: str, structure: str, metric: str = METRIC) -> pd.DataFrame:
    """Mean over seeds with the standard error of the mean as text: rows (method, M), columns T."""
    mine = records[(records["kind"] == kind) & (records["structure"] == structure)]
    if "step" in mine:
        mine = mine[mine["step"].isna() | (mine["method"] == "perturbation")]
        mine = mine.sort_values("step").drop_duplicates(["method", "M", "T", "seed"], keep="last")
    groups = mine.groupby(["method", "M", "T"])[metric]
    mean, error = groups.mean(), groups.std(ddof=1) / np.sqrt(groups.count())
    text = mean.map("{:.2f}".format) + error.map(lambda e: "" if np.isnan(e) else f" ({e:.2f})")
    return text.unstack("T").fillna("")
