"""Pictures of networks, with an equation and without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from studies.pictures.read import BASELINE, DISTILLED, FULL, INK, number
from studies.shared import figures

COLOURS = {"distilled": DISTILLED, "weights handed over": FULL}


def pinn_error(tables: dict[str, pd.DataFrame]) -> Any:
    """Relative L2 error of plain networks, in and out of distribution, by where their rows come from."""
    (table,) = tables.values()
    table = table[table["family"] == "reaction-diffusion"]
    methods = list(dict.fromkeys(table.sort_values("M", key=lambda column: column != "")["method"]))
    place = dict(zip(methods, np.arange(len(methods))[::-1], strict=True))
    figure, axes = figures.subplots(1, 2, (8, 3.4), sharey=True)
    for axis, column, title in (
        (axes[0], "error in", "boundary values that were measured"),
        (axes[1], "error out", "boundary values never measured"),
    ):
        for (size, marker), shift in zip(_markers(table["M"]).items(), (0.0, 0.24, 0.08, -0.08, -0.24), strict=False):
            for _, row in table[table["M"] == size].iterrows():
                colour = COLOURS.get(row["method"], BASELINE)
                axis.plot(number(row[column]), place[row["method"]] + shift, marker, color=colour, ms=6)
        axis.set(xscale="log")
        axis.set_xlabel("relative L2 error", fontsize=9)
        axis.set_title(title, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(list(place.values()), methods, fontsize=9)
    for size, marker in _markers(table["M"]).items():
        if size:
            axes[0].plot([], [], marker, color=INK, label=f"{size} rows")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _markers(sizes: pd.Series[str]) -> dict[str, str]:
    """A marker for each number of rows, and one for what has none."""
    return dict(zip(sorted(set(sizes), key=lambda size: int(size or 0)), "Dos^v", strict=False))


def equations(tables: dict[str, pd.DataFrame]) -> Any:
    """Error and coverage of surrogates of eight equations, where the boundary was measured and beyond."""
    table = tables["Surrogates"]
    figure, axes = figures.subplots(1, 2, (8, 3.8), sharey=True)
    place = np.arange(len(table))[::-1]
    for axis, column in ((axes[0], "error"), (axes[1], "held")):
        for where, colour, shift, label in (
            ("in", FULL, 0.12, "boundary values that were measured"),
            ("out", DISTILLED, -0.12, "boundary values never measured"),
        ):
            axis.plot(table[f"{column} {where}"].map(number), place + shift, "o", color=colour, label=label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set(xscale="log", xlabel="relative L2 error of the mean")
    axes[1].axvspan(0.85, 1.0, color=BASELINE, alpha=0.25, lw=0)
    axes[1].set(xlim=(0, 1.04), xlabel="truth in 90% intervals; grey: 85% and more")
    axes[0].set_yticks(place, table["problem"])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def certified_rows(tables: dict[str, pd.DataFrame]) -> Any:
    """What certificates say of the target, and what other students make of the truth, by problem."""
    (table,) = tables.values()
    figure, axes = figures.subplots(1, 2, (8, 3.4), sharey=True)
    place = np.arange(len(table))[::-1]
    for axis, what in ((axes[0], "error"), (axes[1], "held")):
        for of, colour, shift, label in (
            ("target", FULL, 0.12, "the certificate: of the target"),
            ("truth", DISTILLED, -0.12, "other students: of the truth"),
        ):
            axis.plot(table[f"{what}, of the {of}"].map(number), place + shift, "o", color=colour, label=label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].axvline(5, color=INK, lw=1, ls=":")
    axes[0].set(xlim=(0, None))
    axes[0].set_xlabel("error, % of the range (dotted: asked for)", fontsize=9)
    axes[1].axvspan(82, 98, color=BASELINE, alpha=0.25, lw=0)
    axes[1].set(xlim=(0, 104))
    axes[1].set_xlabel("held by 90% intervals, % (grey: asked for)", fontsize=9)
    verdicts = ["certified" if cell == "yes" else "not certified" for cell in table["certified"]]
    axes[0].set_yticks(place, [f"{name}:\n{said}" for name, said in zip(table["problem"], verdicts, strict=True)])
    axes[0].tick_params(axis="y", labelsize=8)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def bpinn(tables: dict[str, pd.DataFrame]) -> Any:
    """Error of constrained HMC and of plain HMC, and effective draws a second over Pyro's HMC, by problem."""
    (table,) = tables.values()
    figure, axes = figures.subplots(1, 2, (8, 3.2), sharey=True)
    place = np.arange(len(table))[::-1]
    for name, colour, shift, label in (
        ("error", DISTILLED, 0.12, "constrained HMC"),
        ("HMC", BASELINE, -0.12, "plain HMC, four chains"),
    ):
        spread = table["+-" if name == "error" else "HMC +-"].map(number)
        axes[0].errorbar(table[name].map(number), place + shift, xerr=2 * spread, fmt="o", color=colour, label=label)
    axes[0].set(xlim=(0, None))
    axes[0].set_xlabel("relative L2 error, two standard errors", fontsize=9)
    axes[0].set_yticks(place, table["problem"], fontsize=9)
    bars = axes[1].barh(place, table["ESS ratio"].map(number), height=0.5, color=DISTILLED)
    axes[1].bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
    axes[1].set(xlim=(0, 26))
    axes[1].set_xlabel("times the effective draws a second of Pyro's HMC", fontsize=9)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def network_rows(tables: dict[str, pd.DataFrame]) -> Any:
    """Error of the predictive mean of networks fitted to a hundred rows, every seed."""
    (table,) = tables.values()
    figure, axis = figures.subplots(1, 1, (7, 3.2))
    methods = list(dict.fromkeys(table["rows"]))
    place = dict(zip(methods, np.arange(len(methods))[::-1], strict=True))
    for method, mine in table.groupby("rows", sort=False):
        colour = DISTILLED if method.startswith("distilled") else BASELINE
        axis.plot(mine["error (sds)"].map(number), [place[method]] * len(mine), "o", color=colour)
    axis.axvline(0.3, color=INK, lw=1, ls=":")
    axis.set_yticks(list(place.values()), methods, fontsize=8)
    axis.set(xscale="log", xlabel="error of the predictive mean, predictive sds (dotted: 0.3)")
    axis.set_title("A hundred rows for a network of a thousand", loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    return figure
