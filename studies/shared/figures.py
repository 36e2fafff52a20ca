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


def write(figure: Any, path: Path, **metadata: str | None) -> None:
    """Writes a figure in the format that its name says, and forgets it."""
    from matplotlib import pyplot as plt

    part = path.with_suffix(f".part{path.suffix}")
    with plt.rc_context({"svg.hashsalt": "bayesdd"}):  # equal figures give equal files
        figure.savefig(part, dpi=150, metadata=metadata or None)
    plt.close(figure)
    part.replace(path)
