"""Pictures of how close distilled posteriors come, and to whom one can trust it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from studies.pictures.read import BASELINE, DISTILLED, FULL, INK, LEAST, finished, number
from studies.shared import figures


def quickstart(tables: dict[str, pd.DataFrame]) -> Any:
    """Means and 95% intervals of ten coefficients under both posteriors."""
    (table,) = tables.values()
    figure, axis = figures.subplots(1, 1, (7, 3.6))
    place = np.arange(len(table))[::-1]
    for prefix, shift, colour, label in (
        ("full", 0.16, FULL, "20,190 rows"),
        ("distilled", -0.16, DISTILLED, "20 synthetic rows"),
    ):
        mean, sd = table[f"{prefix}_mean"].map(number), table[f"{prefix}_sd"].map(number)
        # The constant lies near 1, far from the rest: everything is shown as a difference from the full mean.
        centre = mean - table["full_mean"].map(number)
        axis.errorbar(centre, place + shift, xerr=1.96 * sd, fmt="o", color=colour, ms=4, lw=2, label=label)
    axis.set_yticks(place, table["coefficient"])
    axis.set_xlabel("coefficient, as difference from its mean given all rows; 95% intervals")
    axis.set_title("Twenty rows have the posterior of twenty thousand", loc="left", fontsize=11)
    return finished(figure, axis, legend="outside upper right")


def accuracy(tables: dict[str, pd.DataFrame]) -> Any:
    """KL of every task, at the default tolerance and as close as the rows can come, and the best published code's."""
    (table,) = tables.values()
    figure, axis = figures.subplots(1, 1, (7, 4.8))
    columns = table["task"], table["P"], table["M"]
    names = [f"{task.removeprefix('posteriordb ')}, P = {p}, M = {m}" for task, p, m in zip(*columns, strict=True)]
    place = np.arange(len(table))[::-1]
    ours, published, closest = (
        table[name].map(lambda cell: number(cell) if cell else np.nan)
        for name in ("reverse KL", "best published code (Laplace KL)", "KL at 1e-8")
    )
    axis.hlines(place, closest.fillna(ours), published.fillna(ours), color=BASELINE, lw=1)
    axis.scatter(closest, place, facecolors="white", edgecolors=DISTILLED, zorder=3, label="with tolerance=1e-8")
    axis.scatter(ours, place, color=DISTILLED, zorder=3, label="bayesdd, median over seeds")
    axis.scatter(published, place, color=BASELINE, marker="s", zorder=3, label="best published code (Laplace KL)")
    axis.axvline(0.05, color=INK, lw=1, ls=":")
    axis.text(0.06, place[-2], "certified:\nleft of 0.05", ha="left", va="center", fontsize=8, color=INK)
    axis.set(xscale="log", xlabel="KL(distilled, full), nats: smaller is better", yticks=place)
    axis.set_yticklabels(names, fontsize=8)
    axis.set_title("How far the distilled posterior is from the full one", loc="left", fontsize=11)
    return finished(figure, axis, legend="outside lower center")


def methods(tables: dict[str, pd.DataFrame]) -> Any:
    """KL of the best published method of each task, and of distill."""
    table = tables["Who wins"]
    figure, axis = figures.subplots(1, 1, (7, 4.2))
    place = np.arange(len(table))[::-1]
    ours, best = table["distill"].map(number), table["its KL"].map(number)
    axis.hlines(place, ours, best, color=BASELINE, lw=1)
    axis.scatter(best, place, color=BASELINE, marker="s", zorder=3, label="best published method")
    axis.scatter(ours, place, color=DISTILLED, zorder=3, label="distill")
    for y, value, name in zip(place, best, table["best published"], strict=True):
        axis.annotate(name, (value, y), (6, -3), textcoords="offset points", fontsize=7, color=INK)
    axis.set(xscale="log", xlabel="KL(distilled, full), nats: smaller is better", xlim=(None, 1e4))
    axis.set_yticks(place, [f"{task}, M = {m}" for task, m in zip(table["task"], table["M"], strict=True)], fontsize=8)
    axis.set_title("The nearest of fifteen published methods, and distill", loc="left", fontsize=11)
    return finished(figure, axis, legend="outside upper right")


def contract(tables: dict[str, pd.DataFrame]) -> Any:
    """KL that the certificate says against the true one, of every model form that has both."""
    table = next(table for table in tables.values() if "KL said, reverse" in table)
    figure, axis = figures.subplots(1, 1, (5.2, 4.6))
    for way, colour, marker in (("reverse", DISTILLED, "o"), ("forward", FULL, "x")):
        pairs = table[[f"true, {way}", f"KL said, {way}"]]
        pairs = pairs[(pairs != "").all(axis=1)]
        true, said = (pairs[name].map(number).clip(lower=LEAST) for name in pairs)
        label = "KL(distilled, full)" if way == "reverse" else "KL(full, distilled)"
        axis.scatter(true, said, s=22, color=colour, marker=marker, lw=1, label=label)
    ends = [LEAST / 3, 3.0]
    axis.plot(ends, ends, color=BASELINE, lw=1, zorder=0)
    axis.axhline(0.05, color=INK, lw=1, ls=":")
    axis.text(ends[0] * 2, 0.06, "certified below 0.05", ha="left", va="bottom", fontsize=8, color=INK)
    axis.set(xscale="log", yscale="log", xlabel="true KL, nats", ylabel="KL that the certificate says, nats")
    axis.set_title(f"{len(table)} models, as people write them", loc="left", fontsize=11)
    return finished(figure, axis, legend="outside lower center")


def trust(tables: dict[str, pd.DataFrame]) -> Any:
    """Share of intervals that hold the truth and of sound sets that are certified, by family of posteriors."""
    table = tables["Certificates against quadrature"]
    figure, axis = figures.subplots(1, 1, (6, 3.8))
    place = np.arange(len(table))[::-1]
    for column, shift, colour, marker, label in (
        ("hold", 0.12, FULL, "o", "intervals of two standard errors that hold the truth"),
        ("sound and ok", -0.12, DISTILLED, "s", "sound sets that are certified"),
    ):
        axis.plot(table[column].map(number), place + shift, marker, color=colour, label=label)
    axis.axvline(0.9, color=INK, lw=1, ls=":")
    far = int(table["ok though far"].map(number).sum())
    asked = int(table["asked too much"].map(number).sum())
    axis.set(xlim=(0.5, 1.02), xlabel="share of sets")
    axis.set_yticks(place, table["family"])
    title = f"Certified though too far: {far} of {asked} that were asked"
    axis.set_title(title, loc="left", fontsize=11)
    return finished(figure, axis, legend="outside lower center")
