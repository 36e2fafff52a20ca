"""Pictures of seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from studies.pictures.read import BASELINE, DISTILLED, FULL, finished, number
from studies.shared import figures


def speed(tables: dict[str, pd.DataFrame]) -> Any:
    """Seconds from rows in memory to draws against the number of rows, ten columns."""
    (table,) = tables.values()
    table = table[table["d"] == "10"]
    figure, axis = figures.subplots(1, 1, (6, 3.6))
    for method, colour, style, label in (
        ("(a) distill + sample", DISTILLED, "o-", "distil to 30 rows, certify, 4 x 1,000 draws"),
        ("(b) NumPyro NUTS", FULL, "s-", "NUTS on all rows, 1 x 500 draws"),
        ("(e) Laplace, uncorrected", BASELINE, "^-", "Laplace fit, says not how far off"),
        ("(f) one sweep, 1,000 particles", BASELINE, "x:", "one pass over all rows at 1,000 draws"),
    ):
        mine = table[table["method"] == method]
        axis.plot(mine["N"].map(number), mine["seconds"].map(number), style, color=colour, label=label)
    axis.set(xscale="log", yscale="log", xlabel="rows N, ten columns", ylabel="seconds, one thread")
    axis.set_title("Above 100,000 rows distilling is cheaper than one chain", loc="left", fontsize=11)
    return finished(figure, axis, legend="outside lower center")


def scale(tables: dict[str, pd.DataFrame]) -> Any:
    """Seconds from rows on disk to certified rows against the number of rows."""
    table = next(table for table in tables.values() if {"N", "d", "peak GiB"} <= set(table))
    table = table[(table["ranks"] == "1") & (table["peak GiB"] != "")]
    if "rows from" in table:
        table = table[table["rows from"] == "netcdf"]
    figure, axis = figures.subplots(1, 1, (6, 3.4))
    for columns, colour in (("10", DISTILLED), ("20", FULL)):
        mine = table[table["d"] == columns]
        axis.plot(mine["N"].map(number), mine["seconds"].map(number), "o-", color=colour, label=f"{columns} columns")
        for n, seconds, peak in zip(mine["N"], mine["seconds"], mine["peak GiB"], strict=True):
            at = number(n), number(seconds)
            axis.annotate(f"{peak} GiB", at, (0, 7), textcoords="offset points", ha="center", fontsize=7)
    axis.set(xscale="log", yscale="log", ylim=(2, 40), xlabel="rows on disk", ylabel="seconds, one thread")
    axis.set_yticks([3, 10, 30], ["3", "10", "30"])
    axis.set_yticks([], minor=True)
    axis.set_title("From a file to certified rows; most memory of the process", loc="left", fontsize=11)
    return finished(figure, axis, legend="outside lower center")


def gpu(tables: dict[str, pd.DataFrame]) -> Any:
    """Where the seconds go on a GPU."""
    (table,) = tables.values()
    told = {row["what"]: row["measured"] for _, row in table.iterrows()}
    seconds = {
        "checks of all rows": told["Task: checks of all rows"],
        "distill": told["distill"],
        "exact certificate, float64": told["exact certificate, float64"].split(",")[-1],
        "exact certificate, float32": told["exact certificate, float32, compiled"].split(",")[-1],
        "2,000 draws at all rows, float64": told["sweep, float64"],
        "2,000 draws at all rows, float32": told["sweep, float32, compiled"],
    }
    figure, axis = figures.subplots(1, 1, (6, 3.0))
    place = np.arange(len(seconds))[::-1]
    bars = axis.barh(place, [number(value) for value in seconds.values()], height=0.6, color=DISTILLED)
    axis.bar_label(bars, fmt="%.3g s", padding=3, fontsize=8)
    axis.set_yticks(place, list(seconds), fontsize=8)
    axis.set(xscale="log", xlabel="seconds", xlim=(0.05, 100))
    axis.set_title("Ten million rows, fifty columns, one card", loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def samplers(tables: dict[str, pd.DataFrame]) -> Any:
    """Effective draws a second of two samplers on the same distilled rows."""
    (table,) = tables.values()
    figure, axis = figures.subplots(1, 1, (6, 1.8))
    place = np.arange(len(table))[::-1]
    values = table["ESS / s"].map(number)
    bars = axis.barh(place, values, height=0.6, color=[DISTILLED, BASELINE])
    axis.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
    axis.set_yticks(place, table["sampler"], fontsize=8)
    axis.set(xlabel="least effective draws a second, warm-up included", xlim=(0, 1.15 * values.max()))
    axis.set_title("Fifty rows, ten coefficients", loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    return figure
