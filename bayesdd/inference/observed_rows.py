"""What a model says of its observed rows, and the derivatives of that, row by row.

A row's distribution depends on that row alone, so that its Jacobian costs one backward pass through one row, where
the Jacobian of all rows at once would cost a pass through all of them for every row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from bayesdd.data.columns import Columns
from bayesdd.task.program import Feeder, Message, Recorder, Site, is_deterministic, row_frame
from bayesdd.task.task import Task


def observed(task: Task, feeder: Feeder, rows: Columns) -> list[Message]:
    """The observed sites of the row plate, as Pyro's messages, of one run of the model on some rows."""
    with Recorder() as recorder, feeder:
        task.model(**rows)
    seen = (m for m in recorder.messages if m["is_observed"] and not is_deterministic(m))
    return [m for m in seen if row_frame(m, task.program.plate) is not None]


Slopes = Callable[[Columns, Columns], tuple[Columns, Tensor]]


def row_slopes(
    task: Task, read: Callable[[list[Message], Columns], tuple[Tensor, Tensor]], derivative: Callable[..., Any]
) -> Slopes:
    """Derivatives in the latents, site by site, of what is read off the observed sites of each row.

    Args:
        task: The task.
        read: The observed sites of one row and its columns -> what is differentiated, and what else is wanted of it.
        derivative: ``torch.func.grad`` where one number is differentiated, ``jacrev`` where several are, ``(K,)``.

    Returns:
        A function of one draw's sites, flat, and rows: the derivatives of each site ``(rows, width)`` or
        ``(rows, K, width)``, and what else was wanted of every row. Rows may have columns that the model does not know.
    """

    def one(free: Columns, row: Columns) -> tuple[Tensor, Tensor]:
        columns = {name: row[name][None] for name in task.data if name in row}
        return read(observed(task, _BySite(task, free), columns), row)

    def single(free: Columns, rows: Columns) -> tuple[Columns, Tensor]:
        found: tuple[Columns, Tensor] = vmap(derivative(one, has_aux=True), in_dims=(None, 0))(free, rows)
        return found

    return single


def row_jacobian(
    task: Task, read: Callable[[list[Message], Columns], tuple[Tensor, Tensor]], derivative: Callable[..., Any]
) -> Callable[[Tensor, Columns], tuple[Tensor, Tensor]]:
    """:func:`row_slopes` of one draw ``(P,)``: ``(rows, P)`` or ``(rows, K, P)``, and what else was wanted."""
    by_site = row_slopes(task, read, derivative)

    def single(flat: Tensor, rows: Columns) -> tuple[Tensor, Tensor]:
        slopes, beside = by_site(sites_of(task, flat), rows)
        return torch.cat([slopes[site.name] for site in task.structure.sites], -1), beside

    return single


def sites_of(task: Task, flat: Tensor) -> Columns:
    """The sites' slices of the last dimension of vectors ``(..., P)``."""
    return {site.name: flat[..., site.start : site.stop] for site in task.structure.sites}


class _BySite(Feeder):
    """Feeds every site from a tensor of its own: a slope in a slice of one vector is padded to all of it."""

    def __init__(self, task: Task, sites: Columns) -> None:
        super().__init__(task.program, next(iter(sites.values())))
        self._sites = sites

    def _free(self, site: Site) -> Tensor:
        return self._sites[site.name]
