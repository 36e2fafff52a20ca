"""Synthetic rows beside real ones, outcome against every covariate."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from bayesdd.data.distilled import Distilled
from bayesdd.data.values import Label
from bayesdd.numerics.refusal import Refusal
from bayesdd.reports.elements import belonging, belongs, elements, outcomes, some
from bayesdd.reports.style import DISTILLED, REAL, areas, density, panels, styled
from bayesdd.task.task import Task

MOST = 12  # panels
SHOWN = 600  # real rows: more hide each other
TICKS, WIDE = 6, 10  # labels on an axis, and characters of one


@styled
def plot_rows(task: Task, distilled: Distilled, *, most: int = MOST, across: int = 4) -> Any:
    """The outcome against every covariate: real rows as points, synthetic ones as discs of their weights' area.

    Columns with several axes a row are left to ``plot_sequences``, columns that do not vary are left out. Without
    outcomes or covariates, neighbouring elements are paired; a single element is shown by its density.

    Args:
        task: The task that the rows belong to.
        distilled: The distilled set.
        most: Most panels.
        across: Panels side by side.

    Raises:
        Refusal: The set does not belong to the task, or nothing is left to draw.
        MissingPackage: matplotlib is not installed.

    Example:
        >>> bayesdd.plot_rows(task, distilled).savefig("rows.svg")
    """
    task, distilled = belonging(task, distilled, "plot_rows")
    rows, weight = distilled.hard()
    real, made = elements(task, task.data), elements(task, {name: rows[name] for name in task.data})
    varying = [name for name, value in real.items() if float(np.nanstd(value)) > 0]
    if not varying:
        raise Refusal(f"plot_rows: no column of {task.name} varies with one axis a row; plot_sequences draws sequences")
    seen = outcomes(task)
    along = [name for name in varying if not belongs(name, seen)]
    up = [name for name in varying if belongs(name, seen)]
    pairs = [(a, b) for b in up for a in along] or list(itertools.pairwise(varying))
    pairs = pairs[:most]
    size, picked = areas(weight), some(len(next(iter(real.values()))), SHOWN)
    figure, axes = panels(max(1, len(pairs)), across=across)
    for axis, (a, b) in zip(axes, pairs, strict=False):
        axis.scatter(real[a][picked], real[b][picked], s=5, color=REAL, alpha=0.35, lw=0, label="real rows")
        axis.scatter(made[a], made[b], s=size, color=DISTILLED, alpha=0.45, lw=0)
        axis.scatter(made[a], made[b], s=6, color=DISTILLED, lw=0, label="synthetic rows")
        for side, name in ((axis.xaxis, a), (axis.yaxis, b)):
            side.set_label_text(name)
            _ticks(side, task.labels.get(name, ()))
    if not pairs:
        (name,) = varying
        at, height = density(real[name][np.isfinite(real[name])])
        axes[0].fill_between(at, height, color=REAL, alpha=0.35, lw=0, label="real rows")
        axes[0].scatter(made[name], np.zeros(len(weight)), s=size, color=DISTILLED, lw=0, clip_on=False)
        axes[0].set_xlabel(name)
        axes[0].set_yticks([])
    return figure


def _ticks(side: Any, labels: Sequence[Label]) -> None:
    """At a few numbers, or the labels where a column's codes have them; of many labels those that find room."""
    from matplotlib import ticker

    if not labels:
        side.set_major_locator(ticker.MaxNLocator(4))
        return
    at = range(0, len(labels), -(-len(labels) // TICKS))
    side.set_ticks(at, [_short(str(labels[code])) for code in at])


def _short(label: str) -> str:
    return label if len(label) <= WIDE else label[: WIDE - 1] + "\N{HORIZONTAL ELLIPSIS}"
