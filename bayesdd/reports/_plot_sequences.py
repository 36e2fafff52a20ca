"""Sequences as small multiples: a panel a variable, time from left to right."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesdd.data.distilled import Distilled
from bayesdd.numerics.refusal import Refusal
from bayesdd.reports.elements import belonging, names_along
from bayesdd.reports.style import DISTILLED, REAL, panels, styled
from bayesdd.task.task import Task

MOST = 12  # panels
LINES = 15  # synthetic sequences, the heaviest: more hide each other
BAND = (0.05, 0.5, 0.95)  # quantiles of the real rows, slice by slice


def sequences(task: Task) -> list[str]:
    """Columns of shape ``(rows, T, V)`` or ``(rows, T, ...)``."""
    return [name for name, column in task.data.items() if column.dim() == 3]


@styled
def plot_sequences(task: Task, distilled: Distilled, *, most: int = MOST, across: int = 4) -> Any:
    """Columns of shape (rows, T, V): median and 5 to 95 % band of the real rows, synthetic rows as lines.

    A line's width is its row's weight over the largest. Missing entries are gaps.

    Args:
        task: The task that the rows belong to.
        distilled: The distilled set.
        most: Most variables to show.
        across: Panels side by side.

    Raises:
        Refusal: The set does not belong to the task, or no column holds sequences.
        MissingPackage: matplotlib is not installed.

    Example:
        >>> patients = bayesdd.dbn.task(visits, {"x": torch.randn(30, 4, 2)})
        >>> two = bayesdd.Distilled({"x": patients.data["x"][:2]}, [10.0, 20.0])
        >>> bayesdd.plot_sequences(patients, two).savefig("sequences.svg")
    """
    task, distilled = belonging(task, distilled, "plot_sequences")
    rows, weight = distilled.hard()
    names = [
        (column, place, label) for column in sequences(task) for place, label in enumerate(names_along(task, column))
    ][:most]
    if not names:
        raise Refusal(
            f"plot_sequences: no column of {task.name} has the shape (rows, T, V); plot_rows draws the others"
        )
    heaviest = np.argsort(-weight.numpy(), kind="stable")[:LINES]
    figure, axes = panels(len(names), across=across)
    for axis, (column, place, label) in zip(axes, names, strict=True):
        real = task.data[column][..., place].double().numpy()
        low, middle, high = _quantiles(real)
        at = np.arange(real.shape[1])
        axis.fill_between(at, low, high, color=REAL, alpha=0.25, lw=0)
        axis.plot(at, middle, color=REAL, lw=1.6)
        for row in heaviest:
            width = 0.4 + 1.6 * float(weight[row] / weight.max())
            axis.plot(at, rows[column][row, :, place].double().numpy(), color=DISTILLED, lw=width, alpha=0.6)
        axis.set_title(label if len(sequences(task)) == 1 else f"{column}[{label}]")
        axis.locator_params(nbins=4)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_xlabel("slice")
    return figure


def _quantiles(values: Any) -> Any:
    """Quantiles of each slice of ``(rows, T)``, NaN where nobody was seen."""
    found = np.full((len(BAND), values.shape[1]), np.nan)
    for t, column in enumerate(values.T):
        if len(seen := column[np.isfinite(column)]):
            found[:, t] = np.quantile(seen, BAND)
    return found
