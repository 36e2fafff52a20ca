"""Where real rows live: in memory, or on disk (``bayesdd.data.disk``) and read block by block.

The full data enter only through sums over rows, so one block at a time is enough. What needs rows to look at (kinds,
whitening, starting rows, the checks at construction) looks at a sample: all rows in memory, some on disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from bayesdd.data import columns, formats
from bayesdd.data.columns import Choice, Columns
from bayesdd.data.disk import Stored, stored
from bayesdd.data.names import Selection, wanted
from bayesdd.data.values import Label, Labels
from bayesdd.numerics.refusal import Refusal

IN_MEMORY = 2**29  # bytes as float64: a larger .nc or .zarr stays on disk


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
        """Rows ``start`` to ``stop`` in blocks of ``step``, in order; ``pin``: for asynchronous copies to a device."""

    def take(self, picked: Tensor) -> Columns:
        """Rows of given numbers ``(n,)``, in that order."""

    def unseen(self, start: int, stop: int) -> bool:
        """Whether some of these rows have not been checked against the model; asked once, they count as seen."""

    def fingerprint(self) -> str:
        """SHA-256, hexadecimal: of all rows in memory, of size, types and the sample on disk."""


@dataclass(frozen=True, eq=False)
class Held:
    """Rows in memory: column -> ``(N, ...)``, with their labels and the names of their parts."""

    columns: Columns
    labels: Mapping[str, Labels] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
        return replace(self, columns={name: column.to(device) for name, column in self.columns.items()})

    def blocks(self, start: int, stop: int, step: int, *, pin: bool) -> Iterator[Columns]:
        """Slices; pinned copies where they are not on the device."""
        for at in range(start, stop, step):
            piece = {name: column[at : min(stop, at + step)] for name, column in self.columns.items()}
            yield {n: c.pin_memory() if c.device.type == "cpu" else c for n, c in piece.items()} if pin else piece

    def take(self, picked: Tensor) -> Columns:
        """Rows of given numbers."""
        return {name: column[picked.to(column.device)] for name, column in self.columns.items()}

    def unseen(self, start: int, stop: int) -> bool:
        """Rows in memory are checked when a Task is made."""
        return False

    def fingerprint(self) -> str:
        """Of names, types, shapes and values."""
        return columns.fingerprint(self.columns)


def opened(
    source: columns.Source | Stored,
    select: Selection | None = None,
    choose: Choice | None = None,
    labels: Mapping[str, Sequence[Label]] | None = None,
    *,
    again: bool = False,
) -> Rows:
    """The rows of whatever a Task takes: on disk a ``Stored`` and a .nc or .zarr above 512 MiB, else in memory.

    Arguments are those of ``columns.table``.

    Raises:
        FileNotFoundError, Refusal: As ``columns.table`` and ``disk.on_disk``.
    """
    if isinstance(source, Held):
        return source
    if isinstance(source, Stored):
        names = source.sample.keys() if select is None else wanted(select).keys()
        if not again and (absent := names - source.sample.keys()):
            raise Refusal(f"{source.path}: name the columns {sorted(absent)} by on_disk(path, columns=...)")
        some = choose or list
        return source.chosen(lambda there: some([name for name in there if select is None or name in names]))
    if isinstance(source, str | os.PathLike) and Path(source).suffix in formats.ENGINES:
        with formats.opened(Path(source)) as dataset:
            if 8 * sum(int(variable.size) for variable in dataset.data_vars.values()) > IN_MEMORY:
                return stored(source, select, choose, again=again)
            if Path(source).suffix == ".zarr":
                return _held(columns.table(dataset, select, choose, labels, again=again))
    return _held(columns.table(source, select, choose, labels, again=again))


def _held(table: columns.Table) -> Held:
    return Held(table.columns, table.labels, table.parts)
