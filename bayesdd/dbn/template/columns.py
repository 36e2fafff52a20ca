"""Rows and parameters as users give them, checked and brought into the shapes that the densities take."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bayesdd.data.columns import DataNote, table
from bayesdd.data.values import tensor
from bayesdd.dbn.template.ending import until_end
from bayesdd.dbn.template.structure import Family, Node, Of, Values
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal

Rows = tuple[Tensor, Tensor]  # x (rows, T, V) and static (rows, V_s), NaN where missing


def as_columns(template: Template, rows: Rows) -> dict[str, Tensor]:
    """Rows as the columns of a task."""
    x, static = rows
    return {"x": x, "static": static} if template.static else {"x": x}


def columns(template: Template, data: Any) -> Rows:
    """``x`` (rows, T, V) and ``static`` (rows, V_s), which is empty where the template has no static variables.

    Floating, or integers for categorical columns without missing entries.

    Raises:
        Refusal: A column is missing, unknown or of the wrong shape, or a state is none of a variable's.
    """
    return shaped(template, known(data))


def known(data: Any) -> dict[str, Tensor]:
    """Columns ``x`` and ``static`` of whatever a Task takes, as numbers; a note names others, which are left out."""

    def choose(names: list[str]) -> list[str]:
        if "x" not in names:
            raise Refusal(f"Template needs the columns ['x'] (rows, slices, variables), got {sorted(names)}.")
        if left := [name for name in names if name not in ("x", "static")]:
            warnings.warn(f"a template has no columns {left}: they are left out", DataNote, stacklevel=4)
        return [name for name in names if name not in left]

    return table(data, choose=choose, again=True).columns


def shaped(template: Template, found: Mapping[str, Tensor]) -> Rows:
    """As :func:`columns`, of columns that have been read; a static one may be missing altogether."""
    wanted = ["x", "static"] if template.static else ["x"]
    if sorted(found) != sorted(wanted):
        raise Refusal(f"Template needs the columns {wanted}, got {sorted(found)}.")
    x, size = found["x"], len(template.variables)
    if x.dim() != 3 or x.shape[2] != size or not x.shape[1]:
        raise Refusal(
            f"Template needs column 'x' of shape (rows, slices, {size}), last axis {list(template.variables)}, "
            f"got {tuple(x.shape)}."
        )
    static = found.get("static", torch.zeros(len(x), 0, dtype=torch.float64))
    if static.shape[1:] != (len(template.static),):
        raise Refusal(
            f"Template needs column 'static' of shape (rows, {len(template.static)}), last axis "
            f"{list(template.static)}, got {tuple(static.shape)}."
        )
    x = until_end(template, template.kind.column(x, template.variables))
    return x, template.kind.column(static, template.static)


def by_name(template: Template, x: Tensor, static: Tensor) -> dict[str, Tensor]:
    """Variable -> its values ``(rows, T)``, of a static one ``(rows, 1)``; views."""
    columns = (*x.unbind(2), *static[:, None].unbind(2))
    return dict(zip(template.variables + template.static, columns, strict=True))


def whole(x: Tensor, static: Tensor) -> bool:
    """Whether no entry is missing."""
    return not bool(x.isnan().any() or static.isnan().any())


def soft_columns(template: Template, data: Any) -> tuple[Tensor, Tensor] | None:
    """Probabilities ``(rows, T, V, K)`` and ``(rows, V_s, K)`` where columns hold soft categories, else None.

    Raises:
        Refusal: They are no probabilities of the template's states.
    """
    if not template.states or not isinstance(data, Mapping) or getattr(data.get("x"), "ndim", 0) != 4:
        return None
    x = tensor(data["x"], "column 'x'").double()
    most = max(template.states.values())
    static = tensor(data.get("static", torch.zeros(len(x), 0, most)), "column 'static'").double()
    for name, column, names in (("x", x, template.variables), ("static", static, template.static)):
        if column.shape[-2:] != (len(names), most):
            raise Refusal(
                f"Template needs soft column {name!r} of shape (rows, ..., {len(names)}, {most}), got "
                f"{tuple(column.shape)}."
            )
        unused = torch.arange(most) >= torch.tensor([template.states[n] for n in names], dtype=torch.int64)[:, None]
        wrong = (column < 0).any() | ((column.sum(-1) - 1).abs() > 1e-6).any() | (column * unused > 1e-9).any()
        if bool(wrong):
            raise Refusal(f"Template: soft column {name!r} needs probabilities of each variable's own states.")
    return x, static


def many_draws(template: Template, parameters: Mapping[str, Any]) -> Values:
    """Latent site -> ``(S, *shape)``, float64, in the model's order; other names are left out.

    Raises:
        Refusal: A site is missing or of the wrong shape.
    """
    found = {}
    for site, shape in template.sites.items():
        if site not in parameters:
            raise Refusal(f"Template needs a value of site {site!r}, got {sorted(parameters)}.")
        value = torch.as_tensor(parameters[site]).double()
        if value.shape[1:] != shape or value.dim() != len(shape) + 1:
            raise Refusal(f"Template needs site {site!r} of shape {('S', *shape)}, got {tuple(value.shape)}.")
        found[site] = value
    return found


def groups(template: Template, x: Tensor, static: Tensor) -> list[tuple[tuple[Family, ...], Of]]:
    """Families of each stretch of the structure, with the values of its nodes.

    Values are ``(rows, slices)`` of as many slices as the stretch has, ``(rows, 1)`` for static variables.
    """
    # Variables first: a family then reads whole stretches of memory.
    series: dict[str, Tensor] = dict(zip(template.variables, x.permute(2, 0, 1).contiguous(), strict=True))
    fixed: dict[str, Tensor] = dict(zip(template.static, static.mT[..., None], strict=True))

    def of(node: Node, slices: range) -> Tensor:
        name, lag = node
        return fixed[name] if name in fixed else series[name][:, slices.start - lag : slices.stop - lag]

    return [
        (families, functools.partial(of, slices=slices)) for families, slices in template.structure.ranges(x.shape[1])
    ]
