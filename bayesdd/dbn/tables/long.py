"""Long tables: one line a patient and visit, as hospitals export them, to sequences on a common grid of steps.

Slice t holds what was measured nearest to t steps after the start, within half a step; what lies further from it than
another measurement of the same variable in the same slice is left out, and a slice without a measurement is missing.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdd.data.columns import DataNote
from bayesdd.data.files import load
from bayesdd.data.formats import read_file
from bayesdd.data.measures import Measure
from bayesdd.data.names import closest
from bayesdd.data.values import coded
from bayesdd.dbn.tables.ends import ended
from bayesdd.dbn.tables.times import steps_of
from bayesdd.dbn.tables.units import converted
from bayesdd.numerics.refusal import MissingPackage, Refusal, WrongType

LONGEST = 2000  # slices: above, every= is not in the unit of the times


@dataclass(frozen=True)
class LongTable:
    """Where a source's rows come from.

    Attributes:
        name: Of the file, or "table".
        patients: Of the rows, in their order.
        patient: What the column of patients is called.
        time: What the column of times is called.
        every: Length of a step, in the unit of the times; None of dates.
        own_ids: Whether patients of other sources are others, whatever their numbers.
        others: Columns that nobody asked for.
        notes: What was done, in words.
    """

    name: str
    patients: tuple[Any, ...]
    patient: str
    time: str
    every: float | None
    own_ids: bool = False
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Read:
    """A long table as sequences: columns with names, how their values read, and where they come from."""

    data: dict[str, xr.DataArray]
    variables: tuple[str, ...]
    measures: dict[str, Measure]
    table: LongTable


def read_long(
    table: pd.DataFrame | str | os.PathLike[str],
    *,
    patient: str,
    time: str,
    every: Any,
    variables: Mapping[str, str] | Sequence[str] | None,
    units: Mapping[str, Sequence[Any]],
    transform: Mapping[str, str],
    static: Sequence[str],
    start: Any,
    slices: int | None,
    own_ids: bool,
    ends: Mapping[str, Sequence[Any]],
) -> Read:
    """Sequences of a long table; arguments are those of :meth:`bayesdd.dbn.Source.from_long`."""
    where, frame = _opened(table)
    names = _names(frame, where, patient, time, variables, static, start, ends)
    ours = list(names.values())
    moving = [name for name in ours if name not in static]
    for what, some in (("units", units), ("transform", transform)):
        if unknown := [name for name in some if name not in ours]:
            raise Refusal(f"{where}: {what}= names {unknown[0]!r}, which is none of the variables {ours}.")
    if not len(frame):
        raise Refusal(f"{where}: the table has no rows: at least one visit is needed.")
    if frame[patient].isna().any():
        line = int(np.flatnonzero(frame[patient].isna())[0])
        raise Refusal(f"{where}: row {line} (from 0) has no patient in {patient!r}: complete it, or drop the row.")
    steps = steps_of(frame, where, patient, time, every, start)
    _refuse_twice(frame, where, patient, time)
    row, patients = pd.factorize(frame[patient], sort=True)
    at = np.floor(steps + 0.5).astype(np.int64)
    over = {name: ended(frame, where, patient, time, every, start, name, some) for name, some in ends.items()}
    last = max([int(at.max()), *(int(some.at.max()) for some in over.values() if len(some.at))])
    count = last + 1 if slices is None else slices
    if (at < 0).any():
        early = frame.iloc[int(np.flatnonzero(at < 0)[0])]
        raise Refusal(
            f"{where}: patient {early[patient]} has a visit at {time} {early[time]}, before the start: drop it, or "
            "name another start=."
        )
    if not 0 < count <= LONGEST:
        raise Refusal(
            f"{where}: {count:,} steps of every={every!r} in {time!r}: give the step in the unit of the times."
        )
    back = {name: raw for raw, name in names.items()}
    columns, measures, notes = {}, {}, []
    for name in ours:
        try:
            columns[name], measures[name], said = _column(frame, where, patient, back[name], name, units, transform)
        except Refusal as error:
            if variables is None:
                raise type(error)(f"{error} Or name the columns that are wanted in variables=.") from None
            raise
        notes += [f"{name}: {said}"] if said else []
    x, left = np.full((len(patients), count, len(moving)), np.nan), 0
    nearest_last = np.lexsort((steps, np.abs(steps - at)))[::-1]
    for place, name in enumerate(moving):
        mine = nearest_last[(at < count)[nearest_last] & ~np.isnan(columns[name][nearest_last])]
        x[row[mine], at[mine], place] = columns[name][mine]
        left += len(mine) - int((~np.isnan(x[:, :, place])).sum())
    for name, end in over.items():
        column = np.full((len(patients), count), np.nan)
        # Who ends later than the slices go on is known to go on until there.
        column[patients.get_indexer(end.patients), np.minimum(end.at, count - 1)] = np.where(
            end.at < count, end.state, end.on
        )
        x, moving, ours = np.concatenate([x, column[..., None]], 2), [*moving, name], [*ours, name]
        measures[name] = Measure(labels=end.labels)
    data = {"x": xr.DataArray(x, dims=("row", "slice", "variable"), coords={"variable": moving})}
    fixed = [name for name in ours if name in static]
    if fixed:
        values = np.column_stack(
            [_constant(columns[name], row, patients, measures[name], where, name) for name in fixed]
        )
        data["static"] = xr.DataArray(values, dims=("row", "fixed"), coords={"fixed": fixed})
    if beyond := int((at >= count).sum()):
        notes.append(f"{beyond} rows from slice {count} on are left out")
    if left:
        notes.append(f"{left} values that share a slice with a nearer one are left out")
        warnings.warn(
            f"{where}: {left:,} values share a step of {every} with a nearer one of the same patient and variable and "
            "are left out: a shorter every= keeps them",
            DataNote,
            stacklevel=3,
        )
    used = {patient, time, start, *(column for some in ends.values() for column in some[:2])}
    others = tuple(str(name) for name in frame.columns if name not in names and name not in used)
    about = LongTable(
        where,
        tuple(patients.tolist()),
        patient,
        time,
        float(every) if isinstance(every, int | float) else None,
        own_ids,
        others,
        tuple(notes),
    )
    return Read(data, tuple(ours), measures, about)


def _opened(table: Any) -> tuple[str, pd.DataFrame]:
    if isinstance(table, pd.DataFrame):
        return "table", table.reset_index(drop=True)
    if not isinstance(table, str | os.PathLike):
        hint = ": give its .to_pandas()" if hasattr(table, "to_pandas") else ""
        raise WrongType(
            f"from_long takes a data frame or the path of a CSV or Parquet file, got {type(table).__name__}{hint}"
        )
    path = Path(table)
    if path.suffix not in (".csv", ".parquet", ".pq"):
        raise Refusal(f"{path}: a long table is a CSV or Parquet file, not one of {path.suffix or 'no ending'!r}.")
    if path.suffix == ".csv":
        found: Any = read_file(path)
    else:
        try:
            found = load(path, pd.read_parquet, "a Parquet table")
        except ImportError as error:
            raise MissingPackage(f"{path}: reading Parquet needs the package pyarrow: pip install pyarrow") from error
    return path.name, found.reset_index(drop=True)


def _names(
    frame: pd.DataFrame,
    where: str,
    patient: str,
    time: str,
    variables: Mapping[str, str] | Sequence[str] | None,
    static: Sequence[str],
    start: Any,
    ends: Mapping[str, Sequence[Any]],
) -> dict[str, str]:
    """The table's name of each column that is taken -> ours."""
    if isinstance(variables, str) or isinstance(static, str):
        raise WrongType(f"{where}: variables= and static= take several names, got a text: write it as a list.")
    header = [str(name) for name in frame.columns]
    if repeated := [name for name in header if header.count(name) > 1]:
        raise Refusal(f"{where}: two columns are called {repeated[0]!r}: rename one.")
    frame.columns = pd.Index(header)
    head = [patient, time, *([start] if isinstance(start, str) else [])]
    if short := [name for name, some in ends.items() if isinstance(some, str) or len(some) != 3]:
        raise Refusal(
            f"{where}: ends= says how {short[0]!r} comes: (column of its time, column of its state, the state of those "
            f"who go on), got {ends[short[0]]!r}."
        )
    head += [str(column) for some in ends.values() for column in some[:2]]
    _refuse_unknown(where, header, head)
    if variables is None:
        found = {name: name for name in header if name not in head}
    else:
        found = dict(variables) if isinstance(variables, Mapping) else {name: name for name in variables}
    reverse = set(found.values())
    found |= {name: name for name in static if name not in reverse}
    _refuse_unknown(where, header, found)
    if both := [name for name in ends if name in found.values()]:
        raise Refusal(f"{where}: {both[0]!r} is in variables= and in ends=: name it in ends= only.")
    if not [name for name in found.values() if name not in static]:
        raise Refusal(f"{where}: no variable that changes over time is named: give variables=.")
    if twice := [name for name in found.values() if list(found.values()).count(name) > 1]:
        raise Refusal(f"{where}: two columns are to be called {twice[0]!r}: name one of them.")
    if taken := [name for name in found if name in (patient, time)]:
        raise Refusal(f"{where}: column {taken[0]!r} is the patient or the time, and no variable besides.")
    return found


def _refuse_unknown(where: str, header: Sequence[str], wanted: Any) -> None:
    for name in wanted:
        if name not in header:
            like = closest(str(name), header)
            hint = f": do you mean {like!r}?" if like else f": it has {list(header)}."
            raise Refusal(f"{where}: there is no column {name!r}{hint}")


def _refuse_twice(frame: pd.DataFrame, where: str, patient: str, time: str) -> None:
    twice = frame.duplicated([patient, time])
    if twice.any():
        first = frame[twice].iloc[0]
        more = f" (and {int(twice.sum()) - 1} more)" if twice.sum() > 1 else ""
        raise Refusal(
            f"{where}: patient {first[patient]} has two rows at {time} {first[time]}{more}: keep one, or take their "
            "mean."
        )


def _column(
    frame: pd.DataFrame,
    where: str,
    patient: str,
    raw: str,
    name: str,
    units: Mapping[str, Sequence[Any]],
    transform: Mapping[str, str],
) -> tuple[np.ndarray[Any, Any], Measure, str]:
    """Values of every row, converted and transformed, their measure, and what was done."""
    what = f"{where}: column {raw!r}"
    values, labels = coded(frame[raw], what, None)
    numbers = values.double().numpy().copy()
    if labels:
        if name in units or name in transform:
            raise Refusal(f"{what} holds labels, {list(labels[:3])}, which have no unit and no transform.")
        return numbers, Measure(labels=labels), ""
    said = ""
    if name in units:
        numbers, said = converted(numbers, units[name], (name, raw), what)
    if np.isinf(numbers).any():
        raise Refusal(
            f"{what} is infinite for patient {frame[patient].iloc[int(np.flatnonzero(np.isinf(numbers))[0])]}."
        )
    seen = numbers[~np.isnan(numbers)]
    if not len(seen):
        raise Refusal(f"{what} has every entry missing: leave it out of variables=.")
    measure = Measure(
        transform.get(name),
        units[name][1] if name in units else None,
        centre=None,
        low=float(seen.min()),
        high=float(seen.max()),
    )
    return measure.transformed(numbers, what), measure, said


def _constant(
    values: np.ndarray[Any, Any], row: np.ndarray[Any, Any], patients: Any, measure: Measure, where: str, name: str
) -> np.ndarray[Any, Any]:
    """The one value of each patient, NaN where it is missing throughout."""
    found = np.full(len(patients), np.nan)
    known = ~np.isnan(values)
    found[row[known]] = values[known]
    differ = known & (values != found[row])
    if differ.any():
        at = int(np.flatnonzero(differ)[0])
        plain = measure if measure.labels else Measure(measure.transform)
        pair = plain.outside(np.array([values[at], found[row[at]]]))
        raise Refusal(
            f"{where}: patient {patients[row[at]]} has {name!r} {pair[0]} and {pair[1]}, but a static variable has one "
            "value: correct it, or let it change over time."
        )
    return found
