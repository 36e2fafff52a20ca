"""Figures of the studies: drawn without a display, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib


def subplots(rows: int, columns: int, size: tuple[float, float], **more: Any) -> tuple[Any, Any]:
    """A figure of so many inches and its panels."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(rows, columns, figsize=size, layout="constrained", **more)


def write(figure: Any, path: Path) -> None:
    """Writes a figure and forgets it."""
    from matplotlib import pyplot as plt

    part = path.with_suffix(".part.png")
    figure.savefig(part, dpi=150)
    plt.close(figure)
    part.replace(path)
