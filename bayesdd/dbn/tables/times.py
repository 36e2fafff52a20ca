"""Times of visits, numbers or dates, as steps since the start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bayesdd.numerics.refusal import Refusal, WrongType


def steps_of(
    frame: pd.DataFrame, where: str, patient: str, time: str, every: Any, start: Any, of: str | None = None
) -> np.ndarray[Any, Any]:
    """Time of every row, or what stands in another column, in steps since the start."""
    times = frame[of or time]
    if times.isna().any():
        row = int(np.flatnonzero(times.isna())[0])
        raise Refusal(
            f"{where}: patient {frame[patient].iloc[row]} has a row without a time in {time!r}: complete or drop it."
        )
    if pd.api.types.is_timedelta64_dtype(times):
        times = times / pd.Timedelta(days=1)
    if pd.api.types.is_bool_dtype(times) or not pd.api.types.is_numeric_dtype(times):
        parsed = _dates(times, where, time)
        origin = (_dates(frame[time], where, time) if of else parsed).groupby(frame[patient]).transform("min")
        if isinstance(start, str):
            origin = _dates(frame[start], where, start)
        elif start is not None:
            origin = pd.Timestamp(start)
        try:
            step = pd.Timedelta(days=every) if isinstance(every, int | float) else pd.Timedelta(every)
        except ValueError:
            raise Refusal(f"{where}: every= is a number of days, or such as '30D', got {every!r}.") from None
        found = np.asarray((parsed - origin) / step, dtype=np.float64)
    else:
        if isinstance(every, bool) or not isinstance(every, int | float):
            raise WrongType(f"{where}: every= is a number, in the unit of {time!r}, got {every!r}.")
        origin = frame[start] if isinstance(start, str) else (start or 0.0)
        step = every
        found = np.asarray((times.astype(np.float64) - origin) / (every or np.nan), dtype=np.float64)
    if not bool(step > (pd.Timedelta(0) if isinstance(step, pd.Timedelta) else 0)):
        raise Refusal(f"{where}: every= is the length of a step, above zero, got {every!r}.")
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found))[0])
        raise Refusal(
            f"{where}: patient {frame[patient].iloc[row]} has the time {times.iloc[row]}: no finite number of steps."
        )
    return found


def _dates(values: pd.Series, where: str, name: str) -> pd.Series:
    if pd.api.types.is_bool_dtype(values):
        raise WrongType(f"{where}: column {name!r} is no time: it holds True and False.")
    try:
        return pd.to_datetime(values, format="ISO8601" if values.dtype == object or values.dtype == "str" else None)
    except (ValueError, TypeError, pd.errors.OutOfBoundsDatetime):
        odd = next((v for v in values if pd.isna(pd.to_datetime(v, errors="coerce", format="ISO8601"))), values.iloc[0])
        raise WrongType(
            f"{where}: column {name!r} is no time: it holds {odd!r}; give numbers, such as days since the start, or "
            "dates written 2024-01-31."
        ) from None
