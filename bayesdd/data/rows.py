"""Real rows, wherever they live: what a Task, passes over rows and starting rows need of them.

The full data enter only through sums over rows, so that a block at a time, or a sum from whoever holds the rows, is
enough. What needs rows to look at (kinds, whitening, starting rows, the checks at construction) looks at a sample: all
rows in memory, some of others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bayesdd.data import columns, formats
from bayesdd.data._grouped import Grouped
from bayesdd.data.columns import WEIGHT, Choice, Columns, separated
from bayesdd.data.disk import Stored, stored
from bayesdd.data.media import grid
from bayesdd.data.names import Selection, wanted
from bayesdd.data.partitions import is_dask, partitions
from bayesdd.data.spark import is_spark, spark
from bayesdd.data.tables import medium_of
from bayesdd.data.values import Label, Labels
from bayesdd.numerics.refusal import Refusal

IN_MEMORY = 2**29  # bytes as float64: more stay where they are


class Rows(Protocol):
    """Real rows, wherever they live."""

    @property
    def size(self) -> int:
        """Number N of rows."""

    @property
    def most(self) -> int:
        """Rows that a block may have."""

    @property
    def sample(self) -> Columns:
        """Rows to look at, in memory: all, or some."""

    @property
    def sample_weight(self) -> Tensor | None:
        """How often each of them counts, ``(n,)``; None where every row counts once."""

    @property
    def counted(self) -> int:
        """Number of rows of which these are the distinct ones, weighted by their counts; 0 where none were counted."""

    @property
    def ordered(self) -> bool:
        """Whether every pass gives the rows in one order, also in another process."""

    @property
    def elsewhere(self) -> bool:
        """Whether the rows are in other processes, which sum them by ``total``; else blocks are as good."""

    def total(self, function: Callable[..., tuple[Tensor, ...]], *arguments: Any) -> tuple[Tensor, ...]:
        """Sum of ``function(columns, number of the first row, *arguments)`` over whoever holds rows.

        ``columns`` are as in ``blocks``; function and arguments travel, so that pickle must know them.
        """

    @property
    def labels(self) -> Mapping[str, Labels]:
        """Column of codes, or its element -> label of each code."""

    @property
    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """Array column -> names of what stands along its last axis, where they are known."""

    def number(self, at: int) -> int:
        """Number among all rows, from 0, of a row of the sample."""

    def like(self, sample: Columns) -> Rows:
        """The same rows in the dtypes of a sample that was converted."""

    def on(self, device: torch.device) -> Rows:
        """The same rows, kept on a device where they fit."""

    def blocks(self, start: int, stop: int, step: int, *, pin: bool) -> Iterator[Columns]:
        """Rows ``start`` to ``stop`` in blocks of ``step``, in order; ``pin``: for asynchronous copies to a device.

        Weights of rows, where there are some, are the column ``WEIGHT``.
        """

    def take(self, picked: Tensor) -> Columns:
        """Rows of given numbers ``(n,)``, in that order, weights as in ``blocks``."""

    def unseen(self, start: int, stop: int) -> bool:
        """Whether some of these rows have not been checked against the model; asked once, they count as seen."""

    def fingerprint(self) -> str:
        """SHA-256, hexadecimal, of all rows."""


@dataclass(frozen=True, eq=False)
class Held:
    """Rows in memory: column -> ``(N, ...)``, their labels, the names of their parts, and their weights ``(N,)``."""

    columns: Columns
    labels: Mapping[str, Labels] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sample_weight: Tensor | None = None
    counted: int = 0
    ordered: bool = True
    elsewhere: bool = False

    @property
    def size(self) -> int:
        """Number N of rows."""
        return len(next(iter(self.columns.values())))

    @property
    def most(self) -> int:
        """Rows that a block may have."""
        return self.size

    @property
    def sample(self) -> Columns:
        """All rows."""
        return self.columns

    def number(self, at: int) -> int:
        """The sample is all rows."""
        return at

    def like(self, sample: Columns) -> Held:
        """The sample is all rows."""
        return replace(self, columns=sample)

    def on(self, device: torch.device) -> Held:
        """On the device where they leave half of its memory free, else where they are."""
        wanted = sum(column.numel() * column.element_size() for column in self.columns.values())
        if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] < 2 * wanted:
            return self
        weight = None if self.sample_weight is None else self.sample_weight.to(device)
        moved = {name: column.to(device) for name, column in self.columns.items()}
        return replace(self, columns=moved, sample_weight=weight)

    @property
    def _all(self) -> Columns:
        return self.columns if self.sample_weight is None else {**self.columns, WEIGHT: self.sample_weight}

    def blocks(self, start: int, stop: int, step: int, *, pin: bool) -> Iterator[Columns]:
        """Slices; pinned copies where they are not on the device."""
        for at in range(start, stop, step):
            piece = {name: column[at : min(stop, at + step)] for name, column in self._all.items()}
            yield {n: c.pin_memory() if c.device.type == "cpu" else c for n, c in piece.items()} if pin else piece

    def total(self, function: Callable[..., tuple[Tensor, ...]], *arguments: Any) -> tuple[Tensor, ...]:
        """Of all rows at once."""
        return function(self._all, 0, *arguments)

    def take(self, picked: Tensor) -> Columns:
        """Rows of given numbers."""
        return {name: column[picked.to(column.device)] for name, column in self._all.items()}

    def unseen(self, start: int, stop: int) -> bool:
        """Rows in memory are checked when a Task is made."""
        return False

    def fingerprint(self) -> str:
        """Of names, types, shapes and values."""
        return columns.fingerprint(self._all)


def opened(
    source: Any,
    select: Selection | None = None,
    choose: Choice | None = None,
    labels: Mapping[str, Sequence[Label]] | None = None,
    weight: str | None = None,
    *,
    again: bool = False,
) -> Rows:
    """The rows of whatever a Task takes: in memory up to 512 MiB of float64, else where they are.

    Arguments are those of ``columns.table``.

    Raises:
        FileNotFoundError, Refusal: As ``columns.table`` and ``disk.on_disk``.
    """
    if isinstance(source, Held):
        return source
    if isinstance(source, Stored):
        names = source.sample.keys() if select is None else wanted(select).keys()
        if not again and (absent := names - source.sample.keys()):
            raise Refusal(f"{source.medium.where}: name the columns {sorted(absent)} by on_disk(path, columns=...)")
        some = choose or list
        chosen = source.chosen(lambda there: some([n for n in there if select is None or n in names]), labels, weight)
        return chosen
    if isinstance(source, Grouped):
        return _in_order(_loaded(source.opened(select, choose, labels, weight, again=again)), source.medium.size)
    if is_dask(source):
        return stored(partitions(source), select, choose, labels, weight, again=again)
    if is_spark(source):
        return stored(spark(source), select, choose, labels, weight, again=again)
    if (medium := medium_of(source)) is not None:
        found = stored(medium, select, choose, labels, weight, again=again)
        return found if 8 * _cells(found) * found.size > IN_MEMORY else _loaded(found)
    if isinstance(source, str | os.PathLike) and Path(source).suffix in formats.ENGINES:
        with formats.opened(Path(source)) as dataset:
            if 8 * sum(int(variable.size) for variable in dataset.data_vars.values()) > IN_MEMORY:
                return stored(grid(source), select, choose, labels, weight, again=again)
            if Path(source).suffix == ".zarr":
                return _held(columns.table(dataset, select, choose, labels, weight, again=again))
    return _held(columns.table(source, select, choose, labels, weight, again=again))


def read_whole(
    source: Any,
    select: Selection | None = None,
    choose: Choice | None = None,
    labels: Mapping[str, Sequence[Label]] | None = None,
) -> Columns:
    """All rows of whatever a Task takes, in memory; text without known labels is refused.

    Arguments and errors are those of :func:`opened`.

    Raises:
        Refusal: Rows count more than once.
    """
    rows = opened(source, select, choose, labels, again=True)
    if rows.sample_weight is not None:
        raise Refusal("data: grouped rows count several times each, which is not taken here; give the rows themselves")
    there = len(next(iter(rows.sample.values()))) == rows.size
    return rows.sample if there else rows.take(torch.arange(rows.size))


def _cells(rows: Rows) -> int:
    """Numbers in one row."""
    return sum(column[0].numel() for column in rows.sample.values())


def _held(table: columns.Table) -> Held:
    found, weight = separated(table.columns)
    return Held(found, table.labels, table.parts, weight)


def _in_order(few: Held, counted: int) -> Held:
    """Distinct rows sorted by their values, since databases give them in another order each time.

    Zeros lose their sign: -0.0 and 0.0 are one group, of which either may come.
    """
    few = replace(few, columns={name: column + 0 for name, column in few.columns.items()})
    flat = [column.reshape(len(column), -1).numpy() for column in few.columns.values()]
    order = torch.from_numpy(np.lexsort(np.concatenate(flat, 1).T[::-1]))
    weight = None if few.sample_weight is None else few.sample_weight[order]
    columns = {name: column[order] for name, column in few.columns.items()}
    return replace(few, columns=columns, sample_weight=weight, counted=counted)


def _loaded(rows: Stored) -> Held:
    """All rows of a medium in memory."""
    if len(rows.numbers) == rows.size:
        return Held(rows.sample, rows.labels, rows.parts, rows.sample_weight)
    found, weight = separated(rows.whole())
    return Held(found, rows.labels, rows.parts, weight)
