"""Numbers that users give to functions, checked before anything is computed."""

from __future__ import annotations

import math
import operator
from typing import Any

from bayesdd.numerics.refusal import Refusal, WrongType

SHOWN = 60  # characters of a value in a message
LARGEST_SEED = 2**32  # far below what torch's generators take once a seed is multiplied


def whole(value: Any, what: str, least: int, most: int | None = None, hint: str = "") -> int:
    """A whole number within bounds; ``what`` and ``hint`` are the message's beginning and end.

    Raises:
        WrongType: It is none.
        Refusal: It is too small or too large.
    """
    span = f"from {least:,} to {most:,}" if most is not None else f"from {least:,} on"
    try:
        found = operator.index(value)
    except TypeError as error:
        raise WrongType(f"{what} must be a whole number {span}, got {_shown(value)}{hint}") from error
    if isinstance(value, bool) or found < least or (most is not None and found > most):
        raise Refusal(f"{what} must be a whole number {span}, got {_shown(value)}{hint}")
    return found


def seed(value: Any, verb: str) -> int:
    """A seed."""
    return whole(value, f"{verb}: seed=", -LARGEST_SEED, LARGEST_SEED)


def positive(value: Any, what: str, hint: str = "") -> float:
    """A positive, finite number.

    Raises:
        WrongType: It is no number.
        Refusal: It is not positive and finite.
    """
    try:
        found = float(value)
    except (TypeError, ValueError) as error:
        raise WrongType(f"{what} must be a positive number, got {_shown(value)}{hint}") from error
    if isinstance(value, bool | str) or not 0 < found < math.inf:
        raise Refusal(f"{what} must be a positive number, got {_shown(value)}{hint}")
    return found


def _shown(value: Any) -> str:
    """A value as a line can hold it."""
    text = repr(value)
    return text if len(text) <= SHOWN and "\n" not in text else f"a value of type {type(value).__name__}"
