"""Columns: rows from memory or disk as one tensor a column, and back to a table.

A column is a tensor whose leading axis is the rows: float64 (missing entries are NaN) or int64, on the CPU, detached,
and a copy of what was given. A table (csv, data frame) spells an array column by its elements: `x[0]`, `x[1]`, or
`x[0,0]`, `x[0,1]`, ...
"""

import hashlib
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from bayesdd.data.formats import read_file
from bayesdd.numerics.refusal import Refusal, WrongType

_ELEMENT = re.compile(r"(.+?)\[\s*(\d+(?:\s*,\s*\d+)*)\s*\]")

Columns = dict[str, Tensor]

Source: TypeAlias = Mapping[str, Any] | xr.Dataset | pd.DataFrame | str | os.PathLike[str]

# An attribute of every distilled file; its rows mean nothing without their weights, so `read` refuses such a file.
DISTILLED_MARK = "bayesdd_format"
HASHED_AT_ONCE = 2**16  # rows


def read(source: Source) -> dict[str, Tensor]:
    """Columns from a mapping, an xarray Dataset, a pandas DataFrame, or a path ending in .nc, .npz or .csv.

    Floating columns become float64, booleans and integers int64; masked entries, empty csv cells and pandas' NA become
    NaN. Of a Dataset only the data variables are columns, its first dimension the rows; coordinates are labels. Times
    in a netCDF file are numbers in the file's own units.

    Raises:
        FileNotFoundError: no such file.
        WrongType: text, dates, complex numbers or objects in a column; a source of another type.
        Refusal: no columns or no rows, row counts that differ, an infinite value, a column with every value missing,
            `x[...]` columns that do not fill an array, a damaged file or one of an unknown kind.
    """
    where, columns, table = _named(source)
    if not columns:
        raise Refusal(f"{where}: no columns; give one array a column, such as {{'x': x, 'y': y}}")
    if odd := [name for name in columns if not isinstance(name, str)]:
        raise WrongType(f"{where}: a column is named {odd[0]!r}; names are strings, the model's keyword arguments")
    tensors = {name: tensor(value, f"{where}: column {name!r}") for name, value in columns.items()}
    check_shapes({name: tuple(column.shape) for name, column in tensors.items()}, where)
    if table:
        tensors = assemble(tensors, where)
    for name, column in tensors.items():
        refuse_infinite(column, f"{where}: column {name!r}")
        refuse_missing(column, f"{where}: column {name!r}")
    return tensors


def check_shapes(shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Refuses columns without rows, or that differ in their number."""
    if single := [name for name, shape in shapes.items() if not shape]:
        raise Refusal(f"{where}: column {single[0]!r} is a single number; a column needs one value a row")
    if len({shape[0] for shape in shapes.values()}) > 1:
        counts = ", ".join(f"{name!r} has {shape[0]:,}" for name, shape in shapes.items())
        raise Refusal(f"{where}: columns differ in their number of rows: {counts}; the first axis must be the rows")
    if next(iter(shapes.values()))[0] == 0:
        raise Refusal(f"{where}: no rows; at least one is needed")


def to_frame(columns: Mapping[str, Tensor]) -> pd.DataFrame:
    """A table of one column an element: x of shape (M, 2, 3) becomes `x[0,0]` ... `x[1,2]`; `read` is its inverse."""
    table: dict[str, np.ndarray[Any, Any]] = {}
    for name, column in columns.items():
        values = column.detach().cpu().numpy()
        if values.size == 0:
            raise Refusal(f"column {name!r} of shape {values.shape} is empty; a table cannot hold it, leave it out")
        flat = values.reshape(len(values), -1)
        for i, index in enumerate(itertools.product(*map(range, values.shape[1:]))):
            table[element(name, index)] = flat[:, i]
    return pd.DataFrame(table)


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


def _named(source: Source) -> tuple[str, Mapping[Any, Any], bool]:
    """What to call the source in messages, its columns as they came, and whether it is a table."""
    where, given = "data", source
    if isinstance(source, str | os.PathLike):
        where, given = str(source), read_file(source)
    if isinstance(given, xr.Dataset):
        return where, {name: variable.values for name, variable in variables(given, where).items()}, False
    if isinstance(given, pd.DataFrame):
        _check_header(given.columns, where)
        return where, {name: given[name] for name in given.columns}, True
    if isinstance(given, Mapping):
        return where, given, False
    raise WrongType(
        f"data must be a mapping, an xarray.Dataset, a pandas.DataFrame or a path, got {type(given).__name__}"
    )


def _check_header(header: Iterable[Any], where: str) -> None:
    for name, times in Counter(header).items():
        if name == "":
            raise Refusal(f"{where}: a column has no name (an index? pandas leaves it out by index=False)")
        if times > 1:
            raise Refusal(f"{where}: {times} columns are called {name!r}; names must differ")


def variables(dataset: xr.Dataset, where: str) -> dict[Any, xr.DataArray]:
    """The data variables, unread; refuses a dimension that is the rows of one and a trailing axis of another."""
    if DISTILLED_MARK in dataset.attrs:
        raise Refusal(f"{where}: this is a distilled set, whose rows carry weights; read it by Distilled.from_netcdf")
    found = dict(dataset.data_vars)
    rows = {variable.dims[0]: name for name, variable in found.items() if variable.dims}
    for name, variable in found.items():
        for dim in variable.dims[1:]:
            if dim in rows:
                raise Refusal(
                    f"{where}: dimension {dim!r} is the first of {rows[dim]!r} but not of {name!r} {variable.dims}; "
                    f"transpose it so that the rows come first"
                )
    return found


def tensor(value: Any, what: str) -> Tensor:
    """One column: float64 or int64, on the CPU, detached, a copy; ``what`` names it in messages."""
    if not isinstance(value, Tensor):
        return torch.from_numpy(_array(value, what))
    column = value.detach().cpu().to_dense()
    if column.is_complex():
        raise WrongType(f"{what} holds complex numbers; give real and imaginary parts as columns of their own")
    return column.to(torch.float64 if column.is_floating_point() else torch.int64, copy=True).contiguous()


def _array(value: Any, what: str) -> np.ndarray[Any, Any]:
    if isinstance(value, pd.Series) and value.hasnans and pd.api.types.is_numeric_dtype(value.dtype):
        value = value.to_numpy(dtype=np.float64, na_value=np.nan)
    if isinstance(value, np.ma.MaskedArray) and value.dtype.kind in "biuf":
        value = np.where(value.mask, np.nan, value.data) if value.mask.any() else value.data
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise Refusal(f"{what} is no array, its rows differ in shape; pad them with NaN to one shape") from error
    kind = array.dtype.kind
    if kind == "f" or array.size == 0:
        return array.astype(np.float64, order="C")
    if kind not in "biu":
        example = next((item for item in array.ravel().tolist() if not isinstance(item, int | float)), None)
        raise WrongType(
            f"{what} holds values that are not real numbers, such as {example!r} ({array.dtype}); "
            f"encode them as numbers, categories by pandas.factorize"
        )
    if kind == "u" and array.max() > np.iinfo(np.int64).max:
        raise Refusal(f"{what} holds {array.max()}, which does not fit a 64-bit signed integer")
    return array.astype(np.int64, order="C")


def refuse_infinite(column: Tensor, what: str, first: int = 0) -> None:
    """Refuses an infinite value; ``first`` is the number of the first row given."""
    infinite = column.isinf().reshape(len(column), -1).any(1)
    if infinite.any():
        row = first + int(infinite.nonzero()[0])
        raise Refusal(
            f"{what} is infinite, or does not fit float64, in row {row} (from 0); use NaN for a missing value"
        )


def refuse_missing(column: Tensor, what: str) -> None:
    """Refuses a column without any value."""
    if column.numel() and bool(column.isnan().all()):
        raise Refusal(f"{what} has every value missing; leave it out")


def assemble(columns: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Array columns out of their elements, in the place of the first element."""
    groups: dict[str, dict[tuple[int, ...], Tensor]] = {}
    for label, column in columns.items():
        match = _ELEMENT.fullmatch(label)
        name, index = (match[1], tuple(int(i) for i in match[2].split(","))) if match else (label, ())
        group = groups.setdefault(name, {})
        if index in group or any(len(other) != len(index) for other in group):
            raise Refusal(f"{where}: column {label!r} clashes with {element(name, next(iter(group)))!r}; rename one")
        group[index] = column
    return {name: _stack(group, name, where) for name, group in groups.items()}


def _stack(group: dict[tuple[int, ...], Tensor], name: str, where: str) -> Tensor:
    shape = [max(axis) + 1 for axis in zip(*group, strict=True)]
    if len(group) != math.prod(shape):
        gap = next(index for index in itertools.product(*map(range, shape)) if index not in group)
        raise Refusal(
            f"{where}: the elements of column {name!r} do not fill an array: {element(name, gap)!r} is missing"
        )
    parts = [group[index] for index in sorted(group)]
    dtype = torch.float64 if any(part.is_floating_point() for part in parts) else torch.int64
    return torch.stack([part.to(dtype) for part in parts], dim=1).reshape(len(parts[0]), *shape)


def element(name: str, index: tuple[int, ...]) -> str:
    """How a table spells an element."""
    return f"{name}[{','.join(map(str, index))}]" if index else name
