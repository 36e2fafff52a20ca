"""The graph of a template network: a slice, the slices before it, and static variables."""

from __future__ import annotations

from typing import Any

from bayesdd.dbn.learning.arrows import Arrow, arrows, names_of
from bayesdd.reports.style import BASELINE, DISTILLED, FAINT, FULL, INK, panels, styled

STEP = 0.5  # inches between two variables
ACROSS = 1.65  # inches between two columns


@styled
def plot_network(network: Any) -> Any:
    """Static variables on the left, then the slices before, then the slice; arrows within a slice and into it.

    Args:
        network: A ``dbn.Template``, or what ``dbn.edges`` returned: the width of an arrow is then its probability,
            which is written beside it, and edges below 0.1 are left out.

    Raises:
        WrongType: Something else came.
        MissingPackage: matplotlib is not installed.

    Example:
        >>> visits = bayesdd.dbn.Template(("lab", "dose"), intra=(("lab", "dose"),), inter=(("lab", "lab"),))
        >>> bayesdd.plot_network(visits).savefig("network.svg")
    """
    found, template = arrows(network), names_of(network)
    every, static = template.variables, template.static
    known = network is template
    tallest = max(len(every), len(static))
    lags = max((1, *(one.lag for one in found)))
    figure, (axis,) = panels(1, size=(5.2 + ACROSS * (lags - 1), 0.7 + STEP * tallest))
    place = {
        (name, lag): (1.0 + lags - lag, _height(i, every, tallest))
        for lag in range(lags + 1)
        for i, name in enumerate(every)
    }
    place |= {(name, 0): (0.0, _height(i, static, tallest)) for i, name in enumerate(static)}
    earlier = {(one.parent, one.lag) for one in found}
    for one in found:
        _arrow(axis, place[one.parent, one.lag], place[one.child, 0], one, known)
    for (name, lag), (x, y) in place.items():
        if lag and (name, lag) not in earlier:
            continue
        colour = FAINT if lag else BASELINE if name in static else FULL
        box = {"boxstyle": "round,pad=0.35", "fc": "none", "ec": colour, "lw": 1.3}
        axis.text(x, y, name, ha="center", va="center", bbox=box, zorder=3)
    heads = [(0.0, "static")] if static else []
    before = [(1.0 + lags - lag, f"{lag} before") for lag in range(lags, 1, -1)]
    for x, said in (*heads, *before, (float(lags), "slice before"), (1.0 + lags, "slice")):
        axis.text(x, tallest - 0.3, said, ha="center", va="bottom", fontsize=8, color=INK)
    axis.set_xlim(-0.4 if static else 0.5, 1.75 + lags)
    axis.set_ylim(-0.6, tallest + 0.2)
    axis.axis("off")
    return figure


def _height(index: int, names: tuple[str, ...], tallest: int) -> float:
    """The first name on top, all in the middle."""
    return tallest - 1 - index - (tallest - len(names)) / 2


def _arrow(axis: Any, start: tuple[float, float], end: tuple[float, float], one: Arrow, known: bool) -> None:
    from matplotlib.patches import FancyArrowPatch

    within = start[0] == end[0]

    # Within a slice arrows bow to the right, the more the further they go, so that names between stay readable.
    bend = (0.35 + 0.1 * abs(start[1] - end[1])) * (1 if start[1] > end[1] else -1)
    shape = f"arc3,rad={-bend if within else 0:.2f}"
    shift = 0.28 if within else 0.0
    drawn = FancyArrowPatch(
        (start[0] + shift, start[1]),
        (end[0] + shift, end[1]),
        arrowstyle="-|>",
        mutation_scale=9,
        connectionstyle=shape,
        color=DISTILLED if within else INK,
        lw=0.5 + 1.5 * one.probability if not known else 1.2,
        alpha=1.0 if known else 0.3 + 0.7 * one.probability,
        shrinkA=2 if within else 26,
        shrinkB=2 if within else 26,
    )
    axis.add_patch(drawn)
    if known:
        return
    if within:  # beside the top of the bow; edges that point up and down between two variables stand apart
        x = start[0] + shift + 0.04 + 0.5 * abs(bend) * abs(start[1] - end[1]) * STEP / ACROSS
        y = (start[1] + end[1]) / 2 + (0.14 if bend > 0 else -0.14)
    else:  # nearer to the parent, where arrows into one child stand apart
        x, y = 0.62 * start[0] + 0.38 * end[0], 0.62 * start[1] + 0.38 * end[1] + 0.16
    axis.text(x, y, f"{one.probability:.2f}", fontsize=7, color=INK, va="center", ha="left" if within else "center")
