"""Rows on disk: netCDF or Zarr, read block by block while the block before is computed on.

Memory is bounded by a setting whatever the number of rows. Made once: a sample of up to 65,536 rows, in runs spread
evenly over the file with the first and the last row among them. Kinds, whitening, constant elements and starting rows
come from the sample, and the checks at construction look at it alone; every other row is checked against the model when
it is first swept, before any result is returned.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
import xarray as xr
from torch import Tensor

from bayesdd.data import columns as tables
from bayesdd.data.columns import Choice, Columns
from bayesdd.data.files import one_line
from bayesdd.data.formats import opened
from bayesdd.data.names import Members, Selection, selected
from bayesdd.data.values import Labels, refuse_infinite, refuse_missing, tensor
from bayesdd.numerics.refusal import Refusal, WrongType

T = TypeVar("T")
R = TypeVar("R")

MEMORY = 96 * 2**20  # bytes of blocks in flight
IN_FLIGHT = 4  # one in use, one ready, one being read twice over while its type is converted
SAMPLE_ROWS, SAMPLE_BYTES = 65_536, 64 * 2**20
RUNS = 512  # contiguous runs of the sample: a read of few rows costs 1 ms however few
GAP = 4096  # rows: reading over a gap is cheaper than a second read


@dataclass(frozen=True, eq=False)
class Stored:
    """Rows of a file that stays on disk; made by ``on_disk``.

    Attributes:
        path: The file, or the folder of a Zarr store.
        size: Number N of rows.
        most: Rows that a block may have.
        sample: The rows to look at, column -> ``(n, ...)``.
        numbers: Their numbers in the file, ``(n,)``.
        state: Size, time and place of the file when it was opened: a change between is an error.
        members: Column -> place in it -> variable of the file.
        unread: Variables that are not numbers.
        parts: Array column made of several variables -> their names.
        seen: Spans of rows, first and past the last, that were checked against the model.
    """

    path: Path
    size: int
    most: int
    sample: Columns
    numbers: Tensor
    state: tuple[int, ...]
    members: Members
    unread: tuple[str, ...] = ()
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seen: set[tuple[int, int]] = field(default_factory=set)
    digest: str = ""

    @property
    def labels(self) -> Mapping[str, Labels]:
        """None: columns on disk are numbers."""
        return {}

    def chosen(self, choose: Choice) -> Stored:
        """Only the columns that are chosen by name."""
        names = choose([*self.sample, *self.unread])
        if text := [name for name in names if name in self.unread]:
            raise WrongType(f"{self.path}: column {text[0]!r} is no number; rows on disk are numbers: encode it")
        if names == list(self.sample):
            return self
        sample = {name: self.sample[name] for name in names}
        return replace(self, sample=sample, digest=_digest(self.size, sample), seen=set())

    def number(self, at: int) -> int:
        """Number in the file of a row of the sample."""
        return int(self.numbers[at])

    def like(self, sample: Columns) -> Stored:
        """The same file read in the dtypes of this sample."""
        return replace(self, sample=sample)

    def on(self, device: torch.device) -> Stored:
        """On disk whatever the device: its blocks go there one by one."""
        return self

    def unseen(self, start: int, stop: int) -> bool:
        """Whether some of these rows were not checked before; from now on they were."""
        if any(low <= start and stop <= high for low, high in self.seen):
            return False
        touching = {span for span in self.seen if span[0] <= stop and start <= span[1]} | {(start, stop)}
        self.seen.difference_update(touching)
        self.seen.add((min(low for low, _ in touching), max(high for _, high in touching)))
        return True

    def fingerprint(self) -> str:
        """Of the number of rows and the sample's names, types and values: a copy elsewhere has the same."""
        return self.digest

    def blocks(self, start: int, stop: int, step: int, *, pin: bool) -> Iterator[Columns]:
        """Rows in blocks of ``step``; a thread reads the next ones ahead.

        Raises:
            OSError: The file was removed or changed since it was opened, or cannot be read.
            Refusal: A value is infinite or does not fit 64 bits.
        """
        length = step * max(1, self.most // step)
        spans = [(at, min(stop, at + length)) for at in range(start, stop, length)]
        self.check()
        with opened(self.path) as dataset:

            def read(span: tuple[int, int]) -> Columns:
                found = self._read(dataset, *span)
                return {name: column.pin_memory() for name, column in found.items()} if pin else found

            for chunk in ahead(read, spans):
                for at in range(0, len(next(iter(chunk.values()))), step):
                    yield {name: column[at : at + step] for name, column in chunk.items()}
        self.check()

    def take(self, picked: Tensor) -> Columns:
        """Rows of given numbers, in that order; rows close together are read at once."""
        rows, back = torch.unique(picked.cpu(), return_inverse=True)
        apart = torch.cat([rows.new_zeros(1), (rows.diff() > GAP).long().cumsum(0)])
        counts = torch.unique_consecutive(torch.stack([apart, rows // self.most]), dim=1, return_counts=True)[1]
        self.check()
        with opened(self.path) as dataset:

            def read(run: Tensor) -> Columns:
                found = self._read(dataset, int(run[0]), int(run[-1]) + 1)
                return {name: column[run - run[0]] for name, column in found.items()}

            pieces = list(ahead(read, rows.split(counts.tolist())))
        return {name: torch.cat([piece[name] for piece in pieces])[back] for name in self.sample}

    def check(self) -> None:
        """Refuses a file that is not the one that was opened.

        Raises:
            OSError: It was removed or changed.
        """
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} was removed while its rows were needed; put it back and start again")
        if state(self.path) != self.state:
            raise OSError(
                f"{self.path} was changed while its rows were needed: results would mix two files; start again"
            )

    def _read(self, dataset: xr.Dataset, start: int, stop: int) -> Columns:
        try:
            members = {name: self.members[name] for name in self.sample}
            return read_span(dataset, members, start, stop, str(self.path), self.sample)
        except (OSError, RuntimeError, IndexError, KeyError) as error:
            self.check()
            raise OSError(f"{self.path}: rows {start:,} to {stop:,} cannot be read: {one_line(error)}") from error


def on_disk(path: str | os.PathLike[str], *, columns: Selection | None = None, memory: int = MEMORY) -> Stored:
    """Rows of a .nc or .zarr file that stay there, for ``Task(model, bayesdd.on_disk("rows.nc"))``.

    A Task given the bare path does so by itself above 512 MiB.

    Args:
        path: The file; the first dimension of its data variables is the rows.
        columns: The data variables to use, and what they are called, as of a Task; default all numbers.
        memory: Bytes that blocks of rows may take, in float64, the one being read included.

    Raises:
        FileNotFoundError: No such file.
        MissingPackage: A .zarr without the package zarr.
        WrongType: A column is not numeric.
        Refusal: Another kind of file, a damaged one, no rows, columns that are not there or differ in length.

    Example:
        >>> rows = xr.Dataset({"x": (("row", "column"), x), "y": ("row", y)})
        >>> rows.to_netcdf("rows.nc")
        >>> bayesdd.Task(model, bayesdd.on_disk("rows.nc")).size
        200
    """
    return stored(path, columns, None, memory=memory)


def stored(
    path: str | os.PathLike[str],
    select: Selection | None,
    choose: Choice | None,
    *,
    memory: int = MEMORY,
    again: bool = False,
) -> Stored:
    """As ``on_disk``, with a choice by name as in ``columns.table``."""
    path, where = Path(path), str(path)
    with opened(path) as dataset:
        found = tables.variables(dataset, where)
        members: Members = {name: {(): name} for name in found}
        parts: dict[str, tuple[str, ...]] = {}
        if select is not None:
            members, parts = selected(members, select, where, again=again)
        names = list(members) if choose is None else choose(list(members))
        free = select is None and choose is None
        unread = tuple(name for name in names if free and found[name].dtype.kind not in "biuf")
        members = {name: members[name] for name in names if name not in unread}
        raws = [raw for group in members.values() for raw in group.values()]
        if not raws:
            raise Refusal(f"{path}: no column of numbers is left of {sorted(map(str, found))}")
        tables.check_names(found, raws, where)
        tables.check_shapes({name: found[name].shape for name in raws}, where)
        size = len(found[raws[0]])
        row_bytes = max(8, 8 * sum(int(found[name].size) for name in raws) // size)
        numbers = _spread(size, max(2, min(size, SAMPLE_ROWS, SAMPLE_BYTES // row_bytes)))
        probe = read_span(dataset, members, 0, 1, where, None)
        most = max(1, memory // (IN_FLIGHT * row_bytes))
        rows = Stored(path, size, most, probe, numbers, state(path), members, unread, parts)
    sample = rows.take(numbers)
    for name, column in sample.items():
        refuse_missing(column, f"{path}: in the {len(column):,} rows looked at, column {name!r}")
    return replace(rows, sample=sample, digest=_digest(size, sample))


def _digest(size: int, sample: Columns) -> str:
    return hashlib.sha256(f"{size} {tables.fingerprint(sample)}".encode()).hexdigest()


def _spread(size: int, wanted: int) -> Tensor:
    """Numbers of the sample's rows: runs spread evenly, each at a random place of its share, the ends included."""
    if wanted >= size:
        return torch.arange(size)
    runs = min(RUNS, wanted // 2)
    length, share = wanted // runs, size / runs
    generator = torch.Generator().manual_seed(0)
    jitter = torch.rand(runs, generator=generator, dtype=torch.float64)
    jitter[0], jitter[-1] = 0.0, 1.0
    starts = (torch.arange(runs) * share + jitter * (share - length)).floor().long().clamp(0, size - length)
    starts[-1] = size - length
    picked: Tensor = (starts[:, None] + torch.arange(length)).flatten().unique()
    return picked


def read_span(
    dataset: xr.Dataset, members: Members, start: int, stop: int, where: str, like: Columns | None
) -> Columns:
    """Rows ``start`` to ``stop`` as float64 or int64 tensors, of the dtypes of ``like``."""
    found = {}
    for name, group in members.items():
        pieces = {}
        for index, raw in group.items():
            what = f"{where}: column {raw!r}"
            pieces[index] = tensor(dataset[raw].isel({dataset[raw].dims[0]: slice(start, stop)}).values, what)
            refuse_infinite(pieces[index], what, start)
        column = tables.stacked(pieces, name, where)
        found[name] = column if like is None else column.to(dtype=like[name].dtype)
    return found


def ahead(do: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """``map``, one item ahead in a thread of its own (reading releases Python's lock)."""
    with ThreadPoolExecutor(1) as pool:
        coming = None
        for item in items:
            ready, coming = coming, pool.submit(do, item)
            if ready is not None:
                yield ready.result()
                del ready
        if coming is not None:
            yield coming.result()


def state(path: Path) -> tuple[int, ...]:
    """Size, time of the last change and place of a file; of a folder, the sums over its files."""
    files = [path] if path.is_file() else [Path(folder) / name for folder, _, found in os.walk(path) for name in found]
    stats = [file.stat() for file in files]
    return len(stats), *(sum(getattr(s, key) for s in stats) for key in ("st_size", "st_mtime_ns", "st_ino"))
