"""TODO."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown."""
    head = ["| " + " | ".join(map(str, table.columns)) + " |", "|" + "---|" * len(table.columns)]
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join([*head, *lines]) + "\n"


def _cell(value: Any) -> str:
    return {True: "yes", False: "**no**"}[value] if isinstance(value, bool | np.bool_) else str(value)
