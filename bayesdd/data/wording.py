"""What both certificates say alike: a refusal in a sentence, the verdict as HTML, and their fields as JSON."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import pandas as pd

from bayesdd.numerics import words


def refused(reasons: list[str]) -> str:
    """The verdict of a certificate that is not ok."""
    return "NOT certified: " + "; ".join(reasons)


def html(verdict: str, numbers: dict[str, str], *, ok: bool) -> str:
    """The verdict, its head in green or red, above a table of numbers."""
    head, _, rest = verdict.partition(": ")
    colour = "#00695c" if ok else "#b71c1c"
    return f'<p><b style="color: {colour}">{escape(head)}</b>: {escape(rest)}</p>{words.rows(numbers)}'


def plain(value: Any) -> Any:
    """JSON-able: infinities and NaN as strings, tables by columns."""
    if isinstance(value, pd.DataFrame):
        return value.to_dict("split")
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
