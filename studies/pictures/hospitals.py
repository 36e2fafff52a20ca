"""Pictures of merged sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from studies.pictures.read import BASELINE, DISTILLED, FULL, INK, finished, number
from studies.shared import figures


def dbn_size(tables: dict[str, pd.DataFrame]) -> Any:
    """Held-out log-likelihood against the number of rows, five slices."""
    table = tables["Linear-Gaussian, edges given, by number of slices"]
    figure, axis = figures.subplots(1, 1, (6, 3.4))
    for method, colour, label in (
        ("distilled", DISTILLED, "distilled from four incomplete, noisy sources"),
        ("clean subsample", BASELINE, "as many clean and complete sequences"),
    ):
        mine = table[table["method"] == method]
        axis.plot(mine["M"].map(number), mine["5"].map(number), "o-", color=colour, label=label)
    ceiling = number(table.set_index("method")["5"]["all sources"])
    axis.axhline(ceiling, color=FULL, ls="--", lw=1.5, label="all 400 sequences of the sources")
    axis.set(xscale="log", xlabel="rows", ylabel="nats a test sequence", ylim=(-40, -24))
    axis.set_title("Two rows predict like four sources (T = 5)", loc="left", fontsize=11)
    return finished(figure, axis, legend="lower right")


def dbn_slices(tables: dict[str, pd.DataFrame]) -> Any:
    """What five rows lose against all sources, by number of slices."""
    table = tables["Linear-Gaussian, edges given, by number of slices"]
    slices = [column for column in table if column.isdigit()]
    ceiling = table.set_index("method").loc["all sources", slices].map(number)
    figure, axis = figures.subplots(1, 1, (6, 3.4))
    for method, colour, label in (
        ("distilled", DISTILLED, "5 distilled rows"),
        ("clean subsample", BASELINE, "5 clean sequences"),
    ):
        mine = table[(table["method"] == method) & (table["M"] == "5")].iloc[0][slices].map(number)
        axis.plot([int(t) for t in slices], mine - ceiling, "o-", color=colour, label=label)
    axis.axhline(0, color=FULL, ls="--", lw=1.5, label="all 400 sequences of the sources")
    axis.set(xlabel="slices T", ylabel="nats a test sequence,\nrelative to all sources", ylim=(-6, 1))
    axis.set_title("At every length", loc="left", fontsize=11)
    return finished(figure, axis, legend="lower right")


def dbn_course(tables: dict[str, pd.DataFrame]) -> Any:
    """Test log-likelihood along the optimisation of ten rows, five slices."""
    table, whole = tables["Along the optimisation"], tables["By number of slices"].set_index("method")
    steps = [column for column in table if column.isdigit()]
    figure, axis = figures.subplots(1, 1, (6, 3.4))
    for method, colour, label in (
        ("distilled", DISTILLED, "10 distilled rows"),
        ("published algorithm", BASELINE, "10 rows by the published algorithm"),
    ):
        mine = table[(table["method"] == method) & (table["M"] == "10")].iloc[0][steps].map(number)
        axis.plot([int(step) for step in steps], mine, "o-", color=colour, label=label)
    axis.axhline(number(whole["5"]["all sources"]), color=FULL, ls="--", lw=1.5, label="all 400 sequences")
    axis.set(xscale="log", xlabel="steps", ylabel="nats a test sequence")
    axis.set_title("Along the optimisation (T = 5)", loc="left", fontsize=11)
    return finished(figure, axis, legend="center right")


def hospitals(tables: dict[str, pd.DataFrame]) -> Any:
    """Held-out log-likelihood of patients of a trial against the number of rows."""
    table = tables["Held-out patients"]
    column = table.columns[-1]
    figure, axis = figures.subplots(1, 1, (6, 3.4))
    for method, colour, label in (
        ("distilled", DISTILLED, "rows distilled from four hospitals"),
        ("patients measured in full", BASELINE, "as many patients measured in full"),
    ):
        mine = table[table["method"] == method]
        axis.plot(mine["M"].map(number), mine[column].map(number), "o-", color=colour, label=label)
    ceiling = number(table.set_index("method")[column]["all hospitals"])
    axis.axhline(ceiling, color=FULL, ls="--", lw=1.5, label="all patients of the hospitals")
    sizes = [number(size) for size in table[table["method"] == "distilled"]["M"]]
    axis.set(xscale="log", xlabel="rows", ylabel="nats a held-out patient")
    axis.set_xticks(sizes, [f"{size:.0f}" for size in sizes], minor=False)
    axis.set_xticks([], minor=True)
    axis.set_title("Five rows predict like four hospitals", loc="left", fontsize=11)
    return finished(figure, axis, legend="lower right")


def pooling(tables: dict[str, pd.DataFrame]) -> Any:
    """Seconds of the pooled posterior by case, and what is claimed."""
    (table,) = tables.values()
    figure, axis = figures.subplots(1, 1, (7, 3.4))
    place = np.arange(len(table))[::-1]
    axis.barh(place, table["seconds"].map(number), height=0.5, color=DISTILLED, label="seconds of processor time")
    axis.plot(table["claimed"].map(number), place, "|", color=INK, ms=16, mew=2, label="claimed: at most")
    names = [f"{case}, {rows} rows a source" for case, rows in zip(table["case"], table["rows a source"], strict=True)]
    axis.set_yticks(place, names, fontsize=8)
    axis.set(xscale="log", xlabel="seconds, one thread")
    axis.set_title("The posterior given three sources", loc="left", fontsize=11)
    return finished(figure, axis, legend="outside lower center")


def ends(tables: dict[str, pd.DataFrame]) -> Any:
    """Coefficients of the yearly hazards of death and transplantation, given three hospitals' tables."""
    table = tables["The hazard of a year"]
    names = [column for column in table if column.endswith("_before")]
    figure, axis = figures.subplots(1, 1, (6, 2.8))
    place = np.arange(len(names))[::-1]
    for (_, row), shift, colour, label in zip(
        table.iterrows(),
        (0.1, -0.1),
        (FULL, DISTILLED),
        ("any end", "death rather than a transplant, given an end"),
        strict=True,
    ):
        cells = [row[name].split("(") for name in names]
        means, sds = ([number(cell[at]) for cell in cells] for at in (0, 1))
        axis.errorbar(means, place + shift, xerr=1.96 * np.array(sds), fmt="o", color=colour, ms=4, label=label)
    axis.axvline(0, color=INK, lw=1, ls=":")
    axis.set_yticks(place, [f"{name.removesuffix('_before')}, a year before" for name in names])
    axis.set(xlabel="change of the probit of a year's end by one sd; 95% intervals")
    axis.set_title("What foretells an end, by three hospitals' tables", loc="left", fontsize=11)
    return finished(figure, axis, legend="outside lower center")
