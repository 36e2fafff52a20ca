"""One look for all figures: four colours that colour-blind readers tell apart, and how a figure becomes SVG."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from html import escape
from typing import Any, ParamSpec, TypeVar

import numpy as np

from bayesdd.numerics.refusal import MissingPackage

# Of Okabe & Ito, "Color universal design", 2008, but for the grey; they differ in lightness too, so in grey as well.
REAL, FULL, DISTILLED, BASELINE = "#8c929c", "#0072b2", "#d55e00", "#009e73"
INK, FAINT = "#24292f", "#c8ccd2"
VARIABLES = {REAL: "real", FULL: "full", DISTILLED: "distilled", BASELINE: "baseline", INK: "ink", FAINT: "faint"}
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # columns, sites and labels may hold dollars
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
    "svg.hashsalt": "bayesdd",  # equal figures give equal bytes
}
PANEL = (2.6, 1.9)  # inches: as wide as a phone shows a figure without shrinking its letters
LARGEST = 160.0  # square points: area of the marker of the heaviest row

P = ParamSpec("P")
R = TypeVar("R")


def styled(plot: Callable[P, R]) -> Callable[P, R]:
    """A plot in this style; where matplotlib is missing it is refused in one line."""

    @functools.wraps(plot)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            import matplotlib
        except ImportError as error:
            raise MissingPackage(f"{plot.__name__} needs matplotlib: pip install 'bayesdd[plots]'") from error
        with matplotlib.rc_context(STYLE):
            return plot(*args, **kwargs)

    return drawn


def panels(count: int, *, across: int = 4, size: tuple[float, float] = PANEL) -> tuple[Any, list[Any]]:
    """A figure of ``count`` panels of so many inches, ``across`` of them side by side."""
    from matplotlib import pyplot as plt

    across = min(across, count)
    down = -(-count // across)
    figure, axes = plt.subplots(down, across, squeeze=False, figsize=(size[0] * across, size[1] * down))
    for spare in axes.flat[count:]:
        spare.remove()
    return figure, list(axes.flat[:count])


def logarithmic(*sides: Any) -> None:
    """Labels of logarithmic axes in plain text."""
    from matplotlib.ticker import LogFormatter

    for side in sides:
        side.set_major_formatter(LogFormatter())
        side.set_minor_formatter(LogFormatter(labelOnlyBase=False))


def areas(weight: Any) -> Any:
    """Areas of markers that are in proportion to the rows' weights."""
    weight = np.asarray(weight, dtype=np.float64)
    return LARGEST * weight / weight.max()


def density(values: Any, points: int = 200) -> tuple[Any, Any]:
    """A smooth density of draws over their own range: where, and how high; a spike where all are equal."""
    from scipy.stats import gaussian_kde

    values = np.asarray(values, dtype=np.float64).ravel()
    spread = float(values.std())
    if not spread > 1e-12 * max(1.0, float(np.abs(values).max())):  # of the values: below it rounding is all there is
        return np.array([values[0]] * 2), np.array([0.0, 1.0])
    at = np.linspace(values.min() - 0.5 * spread, values.max() + 0.5 * spread, points)
    return at, gaussian_kde(values)(at)


def vector(figure: Any, label: str) -> str:
    """A figure as one ``<svg>`` that takes its colours from the page, and is closed.

    Args:
        figure: The matplotlib figure.
        label: What it shows, for those who do not see it.
    """
    return vectors(figure, [label])[0]


def vectors(figure: Any, labels: list[str]) -> list[str]:
    """A figure as one ``<svg>`` a panel, all of one size, or as a single one for a single label."""
    import matplotlib
    from matplotlib import pyplot as plt
    from matplotlib.transforms import Bbox

    with matplotlib.rc_context(STYLE):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        axes = figure.axes
        if len(labels) == 1:
            made = [_svg(figure, labels[0], None)]
        else:
            inch = figure.dpi_scale_trans.inverted()
            inner = [axis.get_window_extent().transformed(inch) for axis in axes]
            outer = [axis.get_tightbbox().transformed(inch) for axis in axes]
            pad = np.max(
                [[i.x0 - o.x0, i.y0 - o.y0, o.x1 - i.x1, o.y1 - i.y1] for i, o in zip(inner, outer, strict=True)], 0
            )
            made = []
            for axis, box, label in zip(axes, inner, labels, strict=True):
                for other in axes:
                    other.set_visible(other is axis)
                region = Bbox.from_extents(box.x0 - pad[0], box.y0 - pad[1], box.x1 + pad[2], box.y1 + pad[3])
                made.append(_svg(figure, label, region))
        plt.close(figure)
    return made


def _svg(figure: Any, label: str, region: Any) -> str:
    """SVG without its head, ids of groups, size and own colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, bbox_inches=region, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    width = re.search(r'viewBox="0 0 ([\d.]+)', text)
    head = re.search(r'viewBox="[^"]*"', text)
    size = f'style="max-width: {1.6 * float(width[1]):.0f}px"' if width else ""  # of a point: letters of 13 pixels
    opening = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {head[0] if head else ""} {size} role="img" '
    text = re.sub(r"^<svg[^>]*>", lambda _: f'{opening}aria-label="{escape(label)}">', text)
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return text.strip()
