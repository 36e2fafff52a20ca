"""The values of one column: numbers as float64 or int64, text as codes of its labels, one line for anything else.

Labels are sorted, a pandas categorical keeps its own order. A missing value is NaN, so that integers, booleans and
codes with missing entries are float64. Booleans are 0 and 1.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bayesdd.numerics.refusal import Refusal, WrongType

Label: TypeAlias = str | bool | int | float
Labels: TypeAlias = tuple[Label, ...]
Array: TypeAlias = np.ndarray[Any, Any]

_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([T ].*)?|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}( .*)?|\d{1,2}:\d{2}(:\d{2})?")
_DATES = {"datetime64", "datetime", "date", "timedelta64", "timedelta", "time", "period"}  # pandas' names
_NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal", "empty"}


class Coded(NamedTuple):
    """A column as a tensor, and the labels of its codes; no labels where the values are numbers."""

    values: Tensor
    labels: Labels


def tensor(value: Any, what: str) -> Tensor:
    """A column of numbers: float64 or int64, on the CPU, detached, a copy; ``what`` names it in messages.

    Raises:
        WrongType: Text, dates, complex numbers or objects.
        Refusal: No array, or numbers that do not fit 64 bits.
    """
    return coded(value, what, ()).values


def coded(value: Any, what: str, known: Sequence[Label] | None = None) -> Coded:
    """One column of numbers or labels.

    Args:
        value: Anything that NumPy, pandas, torch, xarray or SciPy calls an array.
        what: Names the column in messages.
        known: Labels in the order of their codes, () for a column of numbers; None: those that occur.

    Raises:
        WrongType: Dates, complex numbers, objects, or text where ``known`` is ().
        Refusal: No array; numbers that do not fit 64 bits; text that may be numbers or dates; an unknown label.
    """
    if isinstance(value, Tensor):
        return Coded(_codes(_from_torch(value, what), known or (), what), tuple(known or ()))
    found = _plain(value, what)
    if isinstance(found, pd.Categorical):
        own = [_label(category) for category in found.categories]
        codes = np.asarray(found.codes, dtype=np.int64)
        return _placed(codes, codes < 0, own, known, what)
    if found.dtype.kind in "OUST":
        sort = pd.api.types.infer_dtype(found.ravel(), skipna=True)
        if sort in ("string", "bytes"):
            return _text(found, known, what)
        if sort == "boolean" or sort in _NUMBERS:
            found = _numbers(found, what)
        else:
            _refuse(found, sort, what)
    elif found.dtype.kind not in "biuf":
        _refuse(found, "datetime64" if found.dtype.kind in "mM" else "", what)
    if known and not any(isinstance(label, str) for label in known):  # numbers that are labels themselves
        seen, place = np.unique(found[~_missing(found)], return_inverse=True)
        codes = np.full(found.shape, -1)
        codes[~_missing(found)] = place
        return _placed(codes, codes < 0, seen.tolist(), known, what)
    if known and found.dtype.kind == "b":
        raise WrongType(f"{what} has the labels {list(known)}, but True and False came; give labels")
    return Coded(_codes(torch.from_numpy(_exact(found, what)), known or (), what), tuple(known or ()))


def refuse_infinite(column: Tensor, what: str, first: int = 0) -> None:
    """Refuses an infinite value; ``first`` is the number of the first row given."""
    if not column.is_floating_point() or bool(column.sum().isfinite()):
        return  # five times as fast as looking at each
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


def _from_torch(value: Tensor, what: str) -> Tensor:
    column = value.detach().cpu().to_dense()
    if column.is_complex():
        raise WrongType(f"{what} holds complex numbers; give real and imaginary parts as columns of their own")
    return column.to(torch.float64 if column.is_floating_point() else torch.int64, copy=True).contiguous()


def _plain(value: Any, what: str) -> Array | pd.Categorical:
    """A NumPy array, masked and missing entries NaN or None; or a categorical."""
    if hasattr(value, "toarray"):  # a SciPy sparse matrix
        value = value.toarray()
    if isinstance(value, pd.Index | pd.Categorical | pd.api.extensions.ExtensionArray):
        value = pd.Series(value)
    if isinstance(value, pd.Series):
        if isinstance(value.dtype, pd.CategoricalDtype):
            return pd.Categorical(value)
        if pd.api.types.is_numeric_dtype(value.dtype):
            value = value.to_numpy(dtype=np.float64, na_value=np.nan) if value.hasnans else value.to_numpy()
        elif not pd.api.types.is_datetime64_any_dtype(value.dtype):
            value = value.to_numpy(dtype=object)
            if len(value) and all(isinstance(row, list | tuple | np.ndarray) for row in value):
                value = list(value)  # an array in every cell
    if isinstance(value, np.ma.MaskedArray):
        if value.dtype.kind in "biuf":
            value = np.where(value.mask, np.nan, value.data) if value.mask.any() else value.data
        elif value.dtype.kind in "OUS":
            gaps, value = np.ma.getmaskarray(value), value.data.astype(object)
            value[gaps] = None
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise Refusal(f"{what} is no array, its rows differ in shape; pad them with NaN to one shape") from error


def _missing(array: Array) -> Array:
    return np.asarray(pd.isna(array))


def _numbers(array: Array, what: str) -> Array:
    """An object array of numbers, booleans and missing values."""
    gaps = _missing(array)
    if gaps.any():
        return np.where(gaps, np.nan, array).astype(np.float64)
    plain = np.array(array.tolist())
    if plain.dtype.kind == "O" and any(isinstance(item, int) for item in plain.ravel()):
        raise Refusal(f"{what} holds an integer that does not fit 64 bits")
    return plain


def _exact(array: Array, what: str) -> Array:
    """A copy as float64 or int64."""
    if array.dtype.kind == "O":  # decimals
        array = array.astype(np.float64)
    if array.dtype.kind == "f" or array.size == 0:
        return array.astype(np.float64, order="C")
    if array.dtype.kind == "u" and array.max() > np.iinfo(np.int64).max:
        raise Refusal(f"{what} holds {array.max()}, which does not fit a 64-bit signed integer")
    return array.astype(np.int64, order="C")


def _text(array: Array, known: Sequence[Label] | None, what: str) -> Coded:
    """Labels; empty text is a missing value."""
    words = np.array(
        ["" if gap else _word(item) for item, gap in zip(array.ravel(), _missing(array).ravel(), strict=True)],
        dtype=object,
    )
    own, place = np.unique(words.astype(str), return_inverse=True)
    labels = own.tolist()
    if known == ():
        example = next((word for word in words if word), "")
        raise WrongType(
            f"{what} holds text, such as {example!r}; numbers are needed: give "
            "codes, equal ones for equal labels wherever the column occurs"
        )
    if known is None:
        refuse_disguised(labels, what)
    codes = place.reshape(array.shape)
    if labels[:1] == [""]:
        labels, codes = labels[1:], codes - 1
    return _placed(codes, codes < 0, labels, known, what)


def _word(item: Any) -> str:
    return (item.decode() if isinstance(item, bytes) else str(item)).strip()


def refuse_disguised(labels: Sequence[str], what: str) -> None:
    """Numbers and dates written as text would become categories in silence."""
    if dates := [label for label in labels if _DATE.fullmatch(label)]:
        _refuse(np.array(dates[:1]), "date", what)
    if numbers := [label for label in labels if _is_number(label)]:
        others = [label for label in labels if label and label not in numbers]
        came = f"numbers and {others[0]!r}" if others else f"numbers written as text, such as {numbers[0]!r}"
        raise WrongType(
            f"{what} holds {came}; give numbers and NaN, or astype('category') if they are names of categories"
        )


def _is_number(label: str) -> bool:
    try:
        float(label.replace(",", "."))
    except ValueError:
        return False
    return True


def _placed(codes: Array, gaps: Array, own: Sequence[Label], known: Sequence[Label] | None, what: str) -> Coded:
    """Codes of a column's own labels as codes of the known ones, NaN where missing."""
    if known is None:
        place, labels = np.arange(len(own)), tuple(own)
    else:
        labels = tuple(known)
        used = np.unique(codes[~gaps])
        if unknown := [own[i] for i in used if own[i] not in labels]:
            if not labels:
                raise WrongType(f"{what} holds labels, such as {unknown[0]!r}; numbers are needed")
            raise Refusal(
                f"{what} has the label {unknown[0]!r}, which is none of {list(labels)}; leave such rows out, or make a "
                "Task of rows with all labels"
            )
        place = np.array([labels.index(label) if label in labels else -1 for label in own], dtype=np.int64)
    found = np.append(place, -1)[codes]
    found = np.where(gaps, np.nan, found) if gaps.any() else found.astype(np.int64)
    return Coded(torch.from_numpy(np.ascontiguousarray(found)), labels)


def _codes(values: Tensor, known: Sequence[Label], what: str) -> Tensor:
    """Numbers in place of labels are codes; between 0 and K - 1, fractions where outcomes are relaxed."""
    if known and values.numel() and bool(((values < 0) | (values > len(known) - 1)).any()):
        raise Refusal(f"{what} has the labels {list(known)}: give labels, or their codes 0 to {len(known) - 1}")
    return values


def _label(category: Any) -> Label:
    """A label as JSON can hold it."""
    plain = category.item() if isinstance(category, np.generic) else category
    return plain if isinstance(plain, str | bool | int | float) else str(plain)


def _refuse(array: Array, sort: str, what: str) -> None:
    if sort in _DATES:
        example = next((item for item in array.ravel() if not pd.isna(item)), "NaT")
        raise WrongType(
            f"{what} holds dates or times, such as {str(example)!r}; give a number, such as days since the first: "
            "(t - t.min()) / pandas.Timedelta(days=1) of t = pandas.to_datetime(column)"
        )
    example = next((item for item in array.ravel().tolist() if not isinstance(item, int | float)), None)
    raise WrongType(f"{what} holds values that are not real numbers, such as {example!r} ({array.dtype}); give numbers")
