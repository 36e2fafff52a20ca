"""Columns: rows from memory or disk as one tensor a column, and back to a table.

A column is a tensor whose leading axis is the rows: float64 (missing entries are NaN) or int64, on the CPU, detached,
and a copy of what was given. A table (csv, data frame) spells an array column by its elements: `x[0]`, `x[1]`, or
`x[0,0]`, `x[0,1]`, ...
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bayesdd.data.files import MOST_LETTERS, one_line
from bayesdd.data.formats import read_file
from bayesdd.data.names import Members, Selection, element, members_of, selected, weighing
from bayesdd.data.values import Label, Labels, coded, refuse_infinite, refuse_missing
from bayesdd.numerics import words
from bayesdd.numerics.refusal import Refusal, WrongType

if TYPE_CHECKING:  # what needs xarray imports it: it takes a quarter of a second
    import xarray as xr

Columns = dict[str, Tensor]

Source: TypeAlias = "Mapping[str, Any] | xr.Dataset | pd.DataFrame | str | os.PathLike[str]"

# Of the names that there are, those to read; refuses where it must.
Choice: TypeAlias = Callable[[list[str]], list[str]]

# An attribute of every distilled file; its rows mean nothing without their weights, so `read` refuses such a file.
DISTILLED_MARK = "bayesdd_format"
WEIGHT = "row weight"  # key of the rows' weights among their columns; no keyword argument can have it
STACKED_AT_ONCE = 4096  # rows, which stay in the CPU's cache
HASHED_AT_ONCE = 2**16  # rows


class DataNote(UserWarning):
    """What was done with data without being asked, such as a column left out."""


@dataclass(frozen=True, eq=False)
class Table:
    """Columns that were read.

    Attributes:
        columns: Column -> ``(N, ...)``.
        labels: Column of codes (or its element, `x[1]`) -> label of each code.
        parts: Array column made of several of the source's columns -> their names, along the last axis.
    """

    columns: Columns
    labels: dict[str, Labels] = field(default_factory=dict)
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read(source: Source) -> dict[str, Tensor]:
    """Columns of numbers from a mapping, an xarray Dataset, a pandas DataFrame, or a path (.nc, .npz or .csv).

    Floating columns become float64, booleans and integers int64; masked entries, None, empty csv cells and pandas' NA
    become NaN. Of a Dataset only the data variables are columns, its first dimension the rows; coordinates are labels.
    Times in a netCDF file are numbers in the file's own units.

    Raises:
        FileNotFoundError: no such file.
        WrongType: text, dates, complex numbers or objects in a column; a source of another type.
        Refusal: no columns or no rows, row counts that differ, an infinite value, a column with every value missing,
            `x[...]` columns that do not fill an array, a damaged file or one of an unknown kind.
    """
    return table(source, again=True).columns


def table(
    source: Source,
    select: Selection | None = None,
    choose: Choice | None = None,
    labels: Mapping[str, Sequence[Label]] | None = None,
    weight: str | None = None,
    *,
    again: bool = False,
) -> Table:
    """As ``read``, with text and categoricals as codes of their labels.

    Args:
        source: The rows.
        select: Which of the source's columns, and what they are called; default all, by their own names.
        choose: Chooses among them by name, before any is looked at.
        labels: Labels that are known, in the order of their codes; of other columns those that occur.
        weight: Column of the source that says how often each row counts; it becomes the column ``WEIGHT``.
        again: The rows go with others that were read before: text without known labels is refused, and a source may
            have the selection's own names in place of those that it selects from.
    """
    if not isinstance(labels, Mapping | None) or any(isinstance(some, str) for some in (labels or {}).values()):
        raise WrongType(
            f'labels= takes a mapping of column to list of labels, {{"ward": ["east", "west"]}}, got {labels!r}'
        )
    where, values, every, parts = _opened(source)
    members, counted = every, {} if weight is None else {WEIGHT: weighing(every, weight, where)}
    if select is not None:
        members, own = selected(members, select, where, again=again)
        parts = own | {name: some for name, some in parts.items() if name in members and name not in own}
    if not members:
        raise Refusal(f"{where}: no columns; give one array a column, such as {{'x': x, 'y': y}}")
    if not any(isinstance(name, str) for name in members):
        check_names(values, [raw for group in members.values() for raw in group.values()], where)
    there = [name for name in members if isinstance(name, str) and (name != weight or select)]
    try:
        kept = list(members) if choose is None else choose(there)
    except Refusal as error:
        if not (levels := _index(values)):
            raise
        raise Refusal(f"{error} The frame's index {levels} is no column: frame.reset_index() makes it one.") from error
    if not kept:
        raise Refusal(f"{where}: none of the columns {sorted(map(str, members))} is one that is taken; see columns=")
    members, kept = members | counted, [*kept, *counted]
    taken = [raw for name in kept for raw in members[name].values()]
    check_names(values, taken, where)
    _check_order({raw: values[raw] for raw in taken} if isinstance(values, dict) else {}, where)
    found = Table({}, {}, {name: some for name, some in parts.items() if name in kept})
    for name in kept:
        pieces = {}
        for index, raw in members[name].items():
            spelled, what = element(name, index), f"{where}: column {raw!r}"
            known = (labels or {}).get(spelled, () if again else None)
            pieces[index], codes = coded(_value(values, raw, what), what, known)
            if codes and name == WEIGHT:
                raise WrongType(f"{where}: weight= names {weight!r}, which holds labels; a weight is a positive number")
            if codes:
                found.labels[spelled] = codes
                if known is None and _is_renumbered(codes):
                    warnings.warn(
                        f"{what} is a categorical of numbers: the model gets the codes 0 to {len(codes) - 1} of "
                        f"{words.listed(codes)}; astype(int) gives the numbers themselves",
                        DataNote,
                        stacklevel=7,
                    )
            check_shapes({raw: tuple(pieces[index].shape)}, where)
        found.columns[name] = stacked(pieces, name, where)
    if strange := [name for name in labels or () if name not in found.labels and not again]:
        raise Refusal(f"{where}: labels= names {strange[0]!r}, which is no column that is taken: {kept}")
    check_shapes({name: tuple(column.shape) for name, column in found.columns.items()}, where)
    for name, column in found.columns.items():
        refuse_infinite(column, f"{where}: column {name!r}")
        refuse_missing(column, f"{where}: column {name!r}")
    if weight is not None:
        check_weights(found.columns[WEIGHT], where)
    return found


def _index(values: Any) -> list[str]:
    """Names of a frame's index, which hold variables where a table comes from groupby or set_index."""
    return [name for name in values.index.names if isinstance(name, str)] if isinstance(values, pd.DataFrame) else []


def _is_renumbered(labels: Labels) -> bool:
    """Whether labels are whole numbers other than their own codes."""
    whole = all(isinstance(label, int | float) and not isinstance(label, bool) for label in labels)
    return whole and list(labels) != list(range(len(labels)))


def _check_order(values: Mapping[str, Any], where: str) -> None:
    """Refuses Series with the same index in different orders: rows by place and rows by label are two tables."""
    series = [(name, value.index) for name, value in values.items() if isinstance(value, pd.Series)]
    for name, index in series[1:]:
        first, like = series[0]
        if index.equals(like) or len(index) != len(like) or not index.is_unique:
            continue
        if len(index.intersection(like)) == len(index):
            raise Refusal(
                f"{where}: columns {first!r} and {name!r} are Series with the same index in different orders: put "
                "them into one DataFrame, which aligns them, or give .to_numpy() of both, to take them as they stand"
            )


def check_weights(weight: Tensor, where: str, first: int = 0) -> None:
    """Refuses weights of rows that are no positive number each; ``first`` is the number of the first row."""
    if weight.dim() != 1:
        raise Refusal(f"{where}: weight= names a column of several numbers a row; it takes one")
    if bool((odd := ~(weight > 0)).any()):
        row = int(odd.nonzero()[0])
        raise Refusal(
            f"{where}: the weight of row {first + row} (from 0) is {float(weight[row]):g}; weights are positive: leave "
            "such rows out"
        )


def separated(block: Columns) -> tuple[Columns, Tensor | None]:
    """Columns that a model takes, and the rows' weights ``(n,)``; None where every row counts once."""
    if WEIGHT not in block:
        return block, None
    return {name: column for name, column in block.items() if name != WEIGHT}, block[WEIGHT].double()


def check_shapes(shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Refuses columns without rows, or that differ in their number."""
    if single := [name for name, shape in shapes.items() if not shape]:
        raise Refusal(f"{where}: column {single[0]!r} is a single number; a column needs one value a row")
    if len({shape[0] for shape in shapes.values()}) > 1:
        counts = ", ".join(f"{name!r} has {shape[0]:,}" for name, shape in shapes.items())
        raise Refusal(f"{where}: columns differ in their number of rows: {counts}; the first axis must be the rows")
    if next(iter(shapes.values()))[0] == 0:
        raise Refusal(f"{where}: no rows; at least one is needed")


def to_frame(columns: Mapping[str, Tensor], labels: Mapping[str, Sequence[Label]] | None = None) -> pd.DataFrame:
    """A table of one column an element: x of shape (M, 2, 3) becomes `x[0,0]` ... `x[1,2]`; `table` is its inverse.

    Codes come out as their labels; where values lie between two codes the column stays as numbers.
    """
    found: dict[str, Any] = {}
    for name, column in columns.items():
        values = column.detach().cpu().numpy()
        if values.size == 0:
            raise Refusal(f"column {name!r} of shape {values.shape} is empty; a table cannot hold it, leave it out")
        flat = values.reshape(len(values), -1)
        for i, index in enumerate(itertools.product(*map(range, values.shape[1:]))):
            spelled = element(name, index)
            known = (labels or {}).get(spelled) or (labels or {}).get(name)
            found[spelled] = _labelled(flat[:, i], known) if known else flat[:, i]
    return pd.DataFrame(found)


def _labelled(codes: np.ndarray[Any, Any], labels: Sequence[Label]) -> Any:
    gaps = np.isnan(codes)
    whole = np.where(gaps, 0, codes).astype(np.int64)
    if bool((whole[~gaps] != codes[~gaps]).any()) or not 0 <= whole.min() <= whole.max() < len(labels):
        return codes
    return [None if gap else labels[code] for code, gap in zip(whole.tolist(), gaps.tolist(), strict=True)]


def fingerprint(columns: Mapping[str, Tensor]) -> str:
    """SHA-256, hexadecimal, over names, types, shapes and values; the order of the columns does not matter.

    All NaNs count as the same value: their sign bit depends on the machine that made them.
    """
    digest = hashlib.sha256()
    for name in sorted(columns):
        column = columns[name].detach().cpu()
        dtype = torch.empty(0, dtype=column.dtype).numpy().dtype.str
        digest.update(f"{name!r} {dtype} {tuple(column.shape)}\n".encode())
        # Piece by piece, so that no column is copied whole.
        for piece in column.split(HASHED_AT_ONCE):
            if piece.is_floating_point() and bool(piece.isnan().any()):
                piece = torch.where(piece.isnan(), math.nan, piece)
            digest.update(piece.contiguous().numpy().data)
    return digest.hexdigest()


def _opened(source: Source) -> tuple[str, Any, Members, dict[str, tuple[str, ...]]]:
    """What to call the source in messages, its values by name, unread, its columns, and what arrays are made of."""
    where, given = "data", source
    if isinstance(source, str | os.PathLike):
        where, given = str(source), read_file(source)
    if isinstance(given, pd.DataFrame):
        return where, given, members_of(list(given.columns), where), {}
    if is_dataset(given):
        found = variables(given, where)
        return where, found, {name: {(): name} for name in found}, _coordinates(found)
    if not isinstance(given, Mapping):
        ways = {"to_pandas": "give its .to_pandas()", "to_frame": "give its .to_frame()"}
        way = next((how for has, how in ways.items() if hasattr(given, has)), "name its columns, {'x': x, 'y': y}")
        raise WrongType(
            f"data must be a mapping, an xarray.Dataset, a pandas.DataFrame or a path, got {type(given).__name__}: "
            f"{'pandas.DataFrame(data) makes one' if _is_records(given) else way}"
        )
    values: dict[Any, Any] = dict(given)
    members: Members = {name: {(): name} for name in values}
    parts: dict[str, tuple[str, ...]] = {}
    more: dict[Any, Any] = {}
    for name in [name for name, value in values.items() if isinstance(value, pd.DataFrame)]:
        if isinstance(name, str):  # an array column of its columns
            value = values[name]
            parts[name] = tuple(map(str, value.columns))
            members[name] = {(i,): element(name, (i,)) for i in range(value.shape[1])}
            more |= {element(name, (i,)): value.iloc[:, i] for i in range(value.shape[1])}
    return where, values | more, members, parts


def _is_records(given: Any) -> bool:
    """Whether rows come one by one with their names: a list of dicts, or one of NumPy's record arrays."""
    named = getattr(getattr(given, "dtype", None), "names", None)
    return bool(named) or (isinstance(given, list) and bool(given) and isinstance(given[0], Mapping))


def _value(values: Any, raw: Any, what: str) -> Any:
    """A column's values, read where they are still in a file.

    Raises:
        Refusal: They cannot be read.
    """
    value = values[raw]
    if not _is_array(value):
        return value
    try:
        return value.values
    except Exception as error:  # codecs answer damaged chunks with errors of every type
        raise Refusal(f"{what} cannot be read; is the file damaged? {one_line(error)[:MOST_LETTERS]}") from error


def _coordinates(found: Mapping[Any, xr.DataArray]) -> dict[str, tuple[str, ...]]:
    """Names along the last axis of matrices, where a Dataset has them."""
    return {
        name: tuple(map(str, variable[variable.dims[1]].values))
        for name, variable in found.items()
        if variable.ndim == 2 and variable.dims[1] in variable.coords
    }


def check_names(values: Any, kept: Collection[Any], where: str) -> None:
    """Refuses names of columns that no model can take, and arrays that do not have their rows first."""
    if odd := [name for name in kept if not isinstance(name, str)]:
        raise WrongType(f"{where}: a column is named {odd[0]!r}; names are strings, the model's keyword arguments")
    if "" in kept:
        raise Refusal(f"{where}: a column has no name (an index? pandas leaves it out by index=False)")
    for name, times in Counter(values.columns if isinstance(values, pd.DataFrame) else ()).items():
        if times > 1 and name in kept:
            raise Refusal(f"{where}: {times} columns are called {name!r}; names must differ")
    arrays = {name: values[name] for name in kept if _is_array(values[name])}
    rows = {array.dims[0]: name for name, array in arrays.items() if array.dims}
    for name, array in arrays.items():
        for dim in array.dims[1:]:
            if dim in rows:
                raise Refusal(
                    f"{where}: dimension {dim!r} is the first of {rows[dim]!r} but not of {name!r} {array.dims}; "
                    f"transpose it so that the rows come first"
                )


def is_dataset(value: Any) -> TypeGuard[xr.Dataset]:
    """Whether something is a Dataset of xarray, which nothing is before xarray is imported."""
    return isinstance(value, getattr(sys.modules.get("xarray"), "Dataset", ()))


def _is_array(value: Any) -> TypeGuard[xr.DataArray]:
    return isinstance(value, getattr(sys.modules.get("xarray"), "DataArray", ()))


def variables(dataset: xr.Dataset, where: str) -> dict[Any, xr.DataArray]:
    """The data variables, unread; refuses a distilled set."""
    if DISTILLED_MARK in dataset.attrs:
        raise Refusal(f"{where}: this is a distilled set, whose rows carry weights; read it by Distilled.from_netcdf")
    return dict(dataset.data_vars)


def stacked(pieces: Mapping[tuple[int, ...], Tensor], name: str, where: str) -> Tensor:
    """An array column from its elements, single columns ``(N,)``.

    Raises:
        Refusal: They do not fill an array.
    """
    if () in pieces:
        return pieces[()]
    shape = [max(axis) + 1 for axis in zip(*pieces, strict=True)]
    if len(pieces) != math.prod(shape):
        # As many places as there are elements, and one more, have a gap among them; all places may be too many.
        gap = next(index for index in (_place(k, shape) for k in range(len(pieces) + 1)) if index not in pieces)
        raise Refusal(
            f"{where}: the elements of column {name!r} do not fill an array: {element(name, gap)!r} is missing"
        )
    parts = [pieces[index] for index in sorted(pieces)]
    check_shapes({element(name, index): tuple(piece.shape) for index, piece in pieces.items()}, where)
    if wide := [index for index, piece in pieces.items() if piece.ndim > 1]:
        raise Refusal(f"{where}: {element(name, wide[0])!r} has several values a row; elements are single columns")
    dtype = torch.float64 if any(part.is_floating_point() for part in parts) else torch.int64
    made, columns = torch.empty(len(parts[0]), len(parts), dtype=dtype), [part.numpy() for part in parts]
    for start in range(0, len(made), STACKED_AT_ONCE):
        span = slice(start, start + STACKED_AT_ONCE)
        for at, values in enumerate(columns):
            made.numpy()[span, at] = values[span]
    return made.reshape(len(parts[0]), *shape)


def _place(number: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Index of an element of an array by its number, the last axis fastest."""
    found = []
    for length in reversed(shape):
        number, at = divmod(number, length)
        found.append(at)
    return tuple(reversed(found))
