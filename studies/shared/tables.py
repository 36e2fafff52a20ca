"""How every study prints and writes what it found: one page of Markdown, tables with their notes below."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from studies.shared import cells


def report(path: Path | None, *parts: str | pd.DataFrame, notes: Iterable[str], floats: str = "") -> None:
    """Prints a page and writes it, whole or not at all.

    Args:
        path: File to write; None only prints.
        parts: Headings, sentences and tables, in order.
        notes: Lines below them; the last one says where the numbers come from, as ``stamps.last_line`` does.
        floats: Format of the tables' floating point numbers.
    """
    shown = [part if isinstance(part, str) else markdown(part, floats) for part in parts]
    text = "\n\n".join([*(part.strip() for part in shown), "\n".join(f"- {note}" for note in notes)]) + "\n"
    print(text)
    if path is not None:
        cells.write(path, text)
        print(f"wrote {path}")


def markdown(table: pd.DataFrame, floats: str = "") -> str:
    """A table in Markdown, its index left out: missing values empty, truths as yes and no."""

    def cell(value: Any) -> str:
        if isinstance(value, bool | np.bool_):
            return "yes" if value else "**no**"
        if value is None or value != value:
            return ""
        return format(value, floats if isinstance(value, float) else "," if isinstance(value, int | np.integer) else "")

    head = ["| " + " | ".join(map(str, table.columns)) + " |", "|" + "---|" * len(table.columns)]
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join([*head, *lines]) + "\n"
