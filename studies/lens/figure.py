"""The figure of ``lens``: reverse KL against M, a panel a task, a line a method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from studies.lens.cases import Case
from studies.lens.methods import OURS, UNIFORM
from studies.shared import figures

# Okabe & Ito's colours, which those who cannot tell red from green can tell apart.
COLOURS = {
    "sampled rows": "#E69F00",
    "clusters": "#CC79A7",
    "sparse regression": "#D55E00",
    "variational coresets": "#009E73",
    "dataset distillation": "#000000",
    "divergence": "#0072B2",
    "score matching": "#0072B2",
    "prediction": "#0072B2",
    "bilevel": "#0072B2",
}
GREY, INK = "#c4c4c4", "#444444"
LEAST = 1e-10  # nats: where the axis ends; smaller values are drawn there


def draw(table: pd.DataFrame, cases: Sequence[Case], path: Path) -> None:
    """Draws it; in each panel the best published method of every family has its colour, the others are grey.

    Args:
        table: As ``table.summary`` returns it.
        cases: The tasks, one panel each.
        path: File to write.
    """
    columns = min(3, len(cases))
    rows = -(-len(cases) // columns)
    fig, axes = figures.subplots(rows, columns, (5 * columns, 4.2 * rows), squeeze=False)
    for axis, case in zip(axes.flat, cases, strict=False):
        _panel(axis, table[(table.task == case.title) & table.reverse.notna()], case.title)
    for axis in axes.flat[len(cases) :]:
        axis.set_visible(False)
    families = [
        family for family in COLOURS if family in set(table.family) and COLOURS[family] != COLOURS["divergence"]
    ]
    handles = [Line2D([], [], color=COLOURS[family], lw=1.8, label=family) for family in families]
    handles += [
        Line2D([], [], color=COLOURS["divergence"], lw=3, label="distill (this project; thin: other objectives)"),
        Line2D([], [], color=GREY, lw=1, label="other published methods"),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    fig.suptitle("KL(distilled, full) in nats, median over seeds; triangles: lower bounds; named: best of its family")
    figures.write(fig, path)


def _panel(axis: Axes, table: pd.DataFrame, title: str) -> None:
    lines = {str(name): group.sort_values("M") for name, group in table.groupby("method")}
    score = {name: float(np.log(np.maximum(group.reverse, LEAST)).mean()) for name, group in lines.items()}
    family = {name: str(group.family.iloc[0]) for name, group in lines.items()}
    published = [name for name, group in lines.items() if bool(group.published.iloc[0])]
    best = {
        min((n for n in published if family[n] == f), key=score.__getitem__) for f in {family[n] for n in published}
    }
    labels = []
    for name, group in lines.items():
        named = name in best | {OURS, UNIFORM}
        ours = name not in published
        colour = COLOURS.get(family[name], INK) if named or ours else GREY
        width = 3.0 if name == OURS else 1.8 if named else 0.8
        values = np.maximum(group.reverse, LEAST)
        style: dict[str, Any] = {"color": colour, "lw": width, "alpha": 0.45 if ours and not named else 1.0}
        style |= {"zorder": 4 if name == OURS else 3 if named else 2, "ls": "--" if name == UNIFORM else "-"}
        axis.plot(group.M, values, marker="o", ms=3.5 if named else 2, **style)
        bounds = group[group.bound == True]  # noqa: E712  objects
        axis.plot(bounds.M, np.maximum(bounds.reverse, LEAST), "^", ms=6, color=colour, zorder=5)
        if named:
            labels.append((float(np.log10(values.iloc[-1])), name, colour))
    if (bound := table.groupby("M").bound.first()).gt(0).any():
        axis.plot(bound.index, bound.where(bound > 0), color=INK, lw=1, ls=":", label="bound")
    axis.set(xscale="log", yscale="log", title=title, xlabel="rows M")
    sizes = sorted(set(table.M))
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_ylim(bottom=max(LEAST / 3, 0.3 * float(np.maximum(table.reverse, LEAST).min())))
    _label(axis, labels, sizes[-1])


def _label(axis: Axes, labels: list[tuple[float, str, str]], right: int) -> None:
    """Names at the ends of their lines, pushed apart."""
    low, high = np.log10(axis.get_ylim())
    gap, above = (high - low) / 22, -np.inf
    places = []
    for height, name, colour in sorted(labels):
        above = max(height, above + gap)
        places.append((above, name, colour))
    over = max(0.0, above - high)
    for place, name, colour in places:
        weight = "bold" if name == OURS else "normal"
        axis.annotate(
            name.replace("_", " "),
            (right, 10 ** (place - over)),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=colour,
            fontweight=weight,
            annotation_clip=False,
        )
