"""An outcome over two inputs, such as the solution of an equation: real rows and synthetic ones in one colour scale."""

from __future__ import annotations

from typing import Any

from bayesdd.data.distilled import Distilled
from bayesdd.numerics.refusal import Refusal
from bayesdd.reports.elements import belonging, belongs, elements, outcomes, some
from bayesdd.reports.style import INK, areas, panels, styled
from bayesdd.task.task import Task

SHOWN = 4000  # real rows
COLOURS = "cividis"  # even in lightness, the same to colour-blind readers


def field_of(task: Task) -> tuple[str, str, str] | None:
    """Two real inputs that vary and the one outcome, if that is what the rows are."""
    found = elements(task, task.data)
    seen = outcomes(task)
    inputs = [name for name, value in found.items() if not belongs(name, seen) and value.std() > 0]
    results = [name for name in found if belongs(name, seen)]
    if (
        len(inputs) != 2
        or len(results) != 1
        or task.labels.keys() & {*inputs}
        or any(c.dim() > 2 for c in task.data.values())
    ):
        return None
    return inputs[0], inputs[1], results[0]


@styled
def plot_field(task: Task, distilled: Distilled, *, across: int = 2) -> Any:
    """The outcome over two inputs: of the real rows, and of the synthetic ones as discs of their weights' area.

    Args:
        task: The task that the rows belong to, with two inputs (elements of columns) and one outcome.
        distilled: The distilled set.
        across: Panels side by side.

    Raises:
        Refusal: The set does not belong to the task, or its inputs are not two.
        MissingPackage: matplotlib is not installed.

    Example:
        >>> plane = bayesdd.Task(model, {"x": torch.rand(50, 2), "y": y[:50]})
        >>> bayesdd.plot_field(plane, by_hand).savefig("field.svg")
    """
    task, distilled = belonging(task, distilled, "plot_field")
    names = field_of(task)
    if names is None:
        raise Refusal(
            f"plot_field: {task.name} has not two inputs of numbers and one outcome; plot_rows draws the others"
        )
    rows, weight = distilled.hard()
    real, made = elements(task, task.data), elements(task, {name: rows[name] for name in task.data})
    picked = some(len(real[names[0]]), SHOWN)
    values = [[found[name] for name in names] for found in ({n: v[picked] for n, v in real.items()}, made)]
    low = min(float(c.min()) for _, _, c in values)
    high = max(float(c.max()) for _, _, c in values)
    figure, axes = panels(2, across=across, size=(3.3, 2.5))
    for axis, (x, y, c), size, title in zip(
        axes, values, (12.0, areas(weight)), ("real rows", "synthetic rows"), strict=True
    ):
        drawn = axis.scatter(x, y, c=c, s=size, cmap=COLOURS, vmin=low, vmax=high, lw=0.4, edgecolors=INK)
        axis.set_title(title)
        axis.set_xlabel(names[0])
        axis.set_ylabel(names[1])
        axis.locator_params(nbins=4)
    figure.colorbar(drawn, ax=axes, label=names[2])
    return figure
