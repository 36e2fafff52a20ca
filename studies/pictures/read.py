"""Committed tables as data frames, and what all pictures share: colours, frames, legends."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from studies.shared import cells

FULL, DISTILLED, BASELINE, INK = "#1f4e79", "#d95f02", "#8c8c8c", "#333333"
LEAST = 1e-12  # nats: what tables print as "<1e-12"


def tables_of(name: str) -> dict[str, pd.DataFrame]:
    """Heading -> table of a committed page; a table without a heading by its number."""
    found: dict[str, pd.DataFrame] = {}
    heading, lines = "", []
    for line in [*(cells.RESULTS / f"{name}.md").read_text().splitlines(), ""]:
        if line.startswith("|"):
            lines.append([cell.strip() for cell in line.strip("|").split("|")])
        elif lines:
            found[heading or str(len(found))] = pd.DataFrame(lines[2:], columns=lines[0])
            lines = []
        if line.startswith("#"):
            heading = line.lstrip("# ")
    return found


def number(cell: str) -> float:
    """The first number of a cell; what is too small to print counts as the least that is."""
    match = re.search(r"-?\d[\d,]*\.?\d*(?:e[+-]?\d+)?", cell)
    if cell.startswith("<"):
        return LEAST
    return float(match[0].replace(",", "")) if match else float("nan")


def finished(figure: Any, axis: Any, legend: str) -> Any:
    """The figure without the frame's upper right, its legend placed."""
    axis.spines[["top", "right"]].set_visible(False)
    if legend.startswith("outside"):
        figure.legend(loc=legend, ncols=3, frameon=False, fontsize=8)
    else:
        axis.legend(loc=legend, frameon=False, fontsize=8)
    return figure
