"""What a source holds, by name: from any container, in the template's order, NaN where missing, text as codes.

Columns are placed by name wherever there are names: those of ``variables=``, a data frame's, or the coordinates of an
xarray axis. Only an array of all the template's variables, without any names, is taken by position.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from bayesdd.data import columns
from bayesdd.data.columns import DataNote
from bayesdd.data.values import Label, Labels, coded
from bayesdd.dbn.template.columns import known
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal, WrongType


@dataclass(frozen=True, eq=False)
class Named:
    """Columns of a source, those of the template's variables that it does not see NaN.

    Attributes:
        x: ``(rows, T, V)`` float64.
        static: ``(rows, V_s)`` float64.
        labels: Variable -> label of each code, where it came as text or categories.
    """

    x: Tensor
    static: Tensor
    labels: dict[str, Labels]


@dataclass(frozen=True, eq=False)
class _Held:
    """A column as it came: values, names along its last axis if it has any, labels of each place on that axis."""

    values: Tensor
    names: tuple[str, ...] | None = None
    labels: tuple[Labels, ...] = ()


def read_named(template: Template, data: Any, variables: Sequence[str] | None) -> Named:
    """The columns of a source.

    Args:
        template: The template.
        data: Whatever a Task takes, with the columns ``x`` and ``static``; ``x`` may be a list of sequences.
        variables: Names of the variables it sees, in the order in which they stand in ``x`` and in ``static``.

    Raises:
        Refusal: Names or shapes do not fit, or there is nothing to see.
    """
    every = [*template.static, *template.variables]
    wanted = every if variables is None else _distinct(variables, every)
    if isinstance(data, pd.DataFrame) and not any(str(name).startswith("x") for name in data.columns):
        raise Refusal(f"Source takes arrays, got a table of {list(data.columns)}: read visits by Source.from_long.")
    if isinstance(data, Mapping | xr.Dataset) and "x" in data:
        held = _all_held(data)
    else:
        held = {name: _Held(column) for name, column in known(data).items()}
    if "x" not in held:
        raise Refusal(f"Template needs the columns {_columns(template)}, got {sorted(held)}.")
    found, labels = {}, {}
    for name, own, other in (
        ("x", template.variables, template.static),
        ("static", template.static, template.variables),
    ):
        if name not in held or not own:
            continue
        shown = None if variables is None else [variable for variable in wanted if variable in own]
        places = _places(name, held[name], shown, own, other)
        values = held[name].values
        wide = torch.full((*values.shape[:-1], len(own)), torch.nan, dtype=torch.float64)
        for at, variable in places.items():
            if variable in wanted:
                wide[..., own.index(variable)] = values[..., at].double()
                if held[name].labels and held[name].labels[at]:
                    labels[variable] = held[name].labels[at]
        found[name] = wide
    x = found["x"]
    none = torch.full((len(x), len(template.static)), torch.nan, dtype=torch.float64)
    static = found.get("static", none)
    if bool(x.isnan().all()) and bool(static.isnan().all()):
        raise Refusal(f"has seen no entry of the variables {wanted}: leave it out.")
    return Named(x, static, labels)


def _columns(template: Template) -> list[str]:
    return ["x", "static"] if template.static else ["x"]


def _distinct(variables: Sequence[str], every: Sequence[str]) -> list[str]:
    if isinstance(variables, str):
        raise WrongType(f"variables= takes a list of names, got the text {variables!r}: write [{variables!r}]")
    found = list(variables)
    if unknown := [name for name in found if name not in every]:
        raise Refusal(f"variables= names {unknown[0]!r}, which is none of the template's {list(every)}.")
    if twice := [name for name in found if found.count(name) > 1]:
        raise Refusal(f"variables= names {twice[0]!r} twice: name each column once, in the order in which they stand.")
    return found


def _all_held(data: Mapping[str, Any] | xr.Dataset) -> dict[str, _Held]:
    """Columns ``x`` and ``static``, checked as those of a Task are; a static one without an entry is left out."""
    plain: dict[Any, Any] = dict(columns.variables(data, "data")) if isinstance(data, xr.Dataset) else dict(data)
    held = {"x": _sequences(plain["x"])}
    if held["x"].values.numel() and bool(held["x"].values.isnan().all()):
        raise Refusal("no entry of any sequence was seen: leave it out.")
    if "static" in plain:
        static = _held(plain["static"], "column 'static'")
        values = static.values[:, None] if static.values.dim() == 1 else static.values
        if not bool(values.isnan().all()):
            held["static"] = _Held(values, static.names, static.labels)
    others = {name: value for name, value in plain.items() if name not in ("x", "static")}
    checked = known(others | {name: some.values for name, some in held.items()})
    return {name: _Held(checked[name], some.names, some.labels) for name, some in held.items()}


def _sequences(x: Any) -> _Held:
    """Sequences ``(rows, T, V)``; a list of unequal lengths is padded by NaN."""
    if not isinstance(x, list | tuple):
        return _held(x, "column 'x'")
    parts = [_held(part, f"column 'x', sequence {i}") for i, part in enumerate(x)]
    if not parts or any(part.values.dim() != 2 for part in parts):
        raise Refusal("a list of sequences needs arrays (slices, variables) of equal width.")
    names = parts[0].names
    for i, part in enumerate(parts):
        if part.values.shape[1] != parts[0].values.shape[1] or part.names != names:
            came = (
                f"{part.names}, but {names} in sequence 0" if names else f"sequence {i} is {tuple(part.values.shape)}"
            )
            raise Refusal(f"a list of sequences needs arrays (slices, variables) of equal width, got {came}.")
    labels = tuple(
        one_order([part.labels[at] for part in parts if part.labels and part.labels[at]], "column 'x'")
        for at in range(parts[0].values.shape[1])
    )
    values = [_recoded(part.values, part.labels, labels) for part in parts]
    return _Held(torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=torch.nan), names, labels)


def _held(value: Any, what: str) -> _Held:
    """One container: a data frame's columns and the labels of an xarray axis are names."""
    if isinstance(value, pd.DataFrame):
        header = list(value.columns)
        numbered = header == list(range(len(header)))
        if odd := [name for name in header if not isinstance(name, str) and not numbered]:
            raise WrongType(f"{what} is a data frame with a column named {odd[0]!r}: name its columns as the variables")
        parts = [coded(value.iloc[:, at], f"{what}, {name!r}", None) for at, name in enumerate(header)]
        values = torch.stack([part.values.double() for part in parts], -1)
        return _Held(values, None if numbered else tuple(header), tuple(part.labels for part in parts))
    names = None
    if isinstance(value, xr.DataArray):
        axis = value.dims[-1] if value.dims else None
        if axis in value.coords and all(isinstance(name, str) for name in value[axis].values.tolist()):
            names = tuple(value[axis].values.tolist())
        elif odd := [dim for dim in value.dims[:-1] if dim in value.coords and value[dim].dtype.kind in "UO"][-1:]:
            raise Refusal(
                f"{what} has names along {odd[0]!r} of {value.dims}, but none along the last axis: transpose it, or "
                f"name that axis: x.assign_coords({axis}=[...])"
            )
        value = value.values
    values, labels = coded(value, what, None)
    if not labels or values.dim() == 0:
        return _Held(values.double(), names)
    # One coding of all variables becomes one of each.
    every = range(values.shape[-1]) if values.dim() > 1 else [slice(None)]
    used = [sorted({int(code) for code in values[..., at][~values[..., at].isnan()].unique()}) for at in every]
    own = tuple(tuple(labels[code] for code in codes) for codes in used)
    return _Held(_recoded(values.double(), (labels,) * len(own), own), names, own)


def _recoded(values: Tensor, old: Sequence[Labels], new: Sequence[Labels]) -> Tensor:
    """Codes of old labels as codes of new ones, place by place of the last axis."""
    found = values.double().clone()
    for at, (before, after) in enumerate(zip(old or ((),) * len(new), new, strict=True)):
        if before and before != after:
            column = found[..., at] if found.dim() > 1 else found
            column.copy_(recoded(column, before, after))
    return found


def recoded(codes: Tensor, old: Labels, new: Labels) -> Tensor:
    """Codes of old labels, NaN where missing, as codes of new ones, which hold them all."""
    place = torch.tensor([new.index(label) for label in old] + [-1], dtype=torch.float64)
    return torch.where(codes.isnan(), torch.nan, place[codes.nan_to_num(nan=len(old)).long()])


def one_order(every: Sequence[Labels], what: str) -> Labels:
    """One order of all labels: that of a categorical that has them all, else sorted.

    Raises:
        Refusal: Two categoricals have them in two orders.
    """
    union = {label for labels in every for label in labels}
    whole = list(dict.fromkeys(labels for labels in every if len(labels) == len(union)))
    chosen = [labels for labels in whole if list(labels) != _sorted(labels)]
    if len(chosen) > 1:
        raise Refusal(f"{what} has categories in two orders, {list(chosen[0])} and {list(chosen[1])}: give one order")
    return chosen[0] if chosen else tuple(_sorted(union))


def _sorted(labels: Any) -> list[Label]:
    return sorted(labels, key=lambda label: (isinstance(label, str), label))


def _places(
    name: str, held: _Held, shown: list[str] | None, own: Sequence[str], other: Sequence[str]
) -> dict[int, str]:
    """Place on the last axis -> variable."""
    shape = tuple(held.values.shape)
    axes = "(rows, slices, variables)" if name == "x" else "(rows, variables)"
    if len(shape) != (3 if name == "x" else 2) or (name == "x" and not shape[1]):
        raise Refusal(f"Template needs column {name!r} of shape {axes}, last axis {list(own)}, got {shape}.")
    if held.names is not None:
        if twice := [variable for variable in held.names if held.names.count(variable) > 1]:
            raise Refusal(f"column {name!r} names {twice[0]!r} twice: name each variable once.")
        if moved := [variable for variable in held.names if variable in other]:
            kinds = ("changes over time", "static") if name == "x" else ("static", "one that changes over time")
            raise Refusal(
                f"column {name!r} holds {moved[0]!r} ({kinds[0]} here), but the template has it as {kinds[1]}."
            )
        if lost := [variable for variable in shown or () if variable not in held.names]:
            raise Refusal(f"variables= names {lost[0]!r}, but column {name!r} holds {list(held.names)}.")
        if left := [variable for variable in held.names if variable not in own]:
            warnings.warn(f"the template has no variables {left} of column {name!r}: they are left out", DataNote, 6)
        return {at: variable for at, variable in enumerate(held.names) if variable in own}
    if shown is not None and len(shown) == shape[-1]:
        return dict(enumerate(shown))
    if shape[-1] == len(own):
        return dict(enumerate(own))
    others = "" if shown is None else f", or those of variables=, {shown}"
    raise Refusal(
        f"Template needs column {name!r} of shape {axes}, last axis {list(own)}{others}, got {shape}: name what stands "
        "there by variables=, in that order."
    )
