"""Ends of patients' courses in a long table: when they came and what they were, as a terminal variable's states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bayesdd.data.values import Labels, coded
from bayesdd.dbn.tables.times import steps_of
from bayesdd.numerics.refusal import Refusal


@dataclass(frozen=True, eq=False)
class Ended:
    """How patients' courses end: their slices, states there, the labels of states, and the state of going on."""

    patients: Any
    at: np.ndarray[Any, Any]
    state: np.ndarray[Any, Any]
    labels: Labels
    on: float


def ended(
    frame: pd.DataFrame,
    where: str,
    patient: str,
    time: str,
    every: Any,
    start: Any,
    name: str,
    given: Sequence[Any],
) -> Ended:
    """An end is seen at the first slice after it; who goes on is seen at the last slice before the follow-up ends."""
    when, what, going = given
    known = frame[frame[when].notna() & frame[what].notna()]
    of = known.groupby(patient, sort=True)
    for column in (when, what):
        if len(odd := of[column].nunique().loc[lambda n: n > 1]):
            raise Refusal(f"{where}: patient {odd.index[0]} has several {column!r}: the end, {name!r}, has one.")
    first = ~known.duplicated(patient)
    steps = steps_of(known, where, patient, time, every, start, of=when)[first]
    values, labels = coded(known[what], f"{where}: column {what!r}", None)
    if labels and going not in labels:
        raise Refusal(f"{where}: nobody goes on: {going!r} is none of the states {list(labels)} in column {what!r}.")
    state, on = values.double().numpy()[first], float(labels.index(going) if labels else going)
    at = np.where(state == on, np.floor(steps), np.ceil(steps)).astype(np.int64)
    if (at < 0).any():
        early = known[first][patient].iloc[int(np.flatnonzero(at < 0)[0])]
        raise Refusal(
            f"{where}: patient {early} ends before the start, in {when!r}: correct it, or name another start=."
        )
    return Ended(known[first][patient].to_numpy(), at, state, labels, on)
