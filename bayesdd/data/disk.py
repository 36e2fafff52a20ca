"""Rows that are not held in memory, read block by block while the block before is computed on.

They stay in netCDF, Zarr, Parquet or Arrow files, in a DuckDB query, or in a table of another library; memory is
bounded by a setting whatever their number. Made once: a sample of up to 65,536 rows, in runs spread evenly, with the
first and the last row among them. Kinds, whitening, constant elements and starting rows come from the sample, and the
checks at construction look at it alone; every other row is checked against the model when it is first swept, before any
result is returned.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bayesdd.data.arrow import Batches
from bayesdd.data.columns import WEIGHT, Choice, Columns, Source, separated
from bayesdd.data.files import one_line
from bayesdd.data.formats import ENGINES, endings
from bayesdd.data.known import Known
from bayesdd.data.media import Medium, Read, Remote, assembled, cast, cursor_of, grid, state_of
from bayesdd.data.names import Members, Selection, element, selected, weighing
from bayesdd.data.stamp import spelled, stamp
from bayesdd.data.tables import FORMATS, medium_of
from bayesdd.data.values import Label, Labels, refuse_missing
from bayesdd.numerics.refusal import Refusal, WrongType

T = TypeVar("T")
R = TypeVar("R")

MEMORY = 96 * 2**20  # bytes of blocks in flight
KEPT = 3  # times as many bytes of tables' blocks stay in memory, which cost twice a read of arrays to decode
IN_FLIGHT = 4  # one in use, one ready, one being read twice over while its type is converted
SAMPLE_ROWS, SAMPLE_BYTES = 65_536, 64 * 2**20
RUNS = 512  # contiguous runs of the sample: a read of few rows costs 1 ms however few
GAP = 4096  # rows: reading over a gap is cheaper than a second read

NO_STAMP = torch.zeros(2, dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class Stored:
    """Rows that stay where they are; made by ``on_disk``.

    Attributes:
        medium: Where.
        select: The user's choice of columns.
        memory: Bytes that blocks may take.
        most: Rows that a block may have.
        sample: The rows to look at, column -> ``(n, ...)``.
        sample_weight: Their weights ``(n,)``; None where all rows count once.
        numbers: Their numbers among all, ``(n,)``.
        members: Column -> place in it -> variable.
        parts: Array column made of several variables -> their names.
        labels: Column of codes, or its element -> label of each code.
        codes: Variable -> the same.
        known: What was learnt so far.
        counted: As of ``rows.Rows``: none, such rows are in memory.
        converted: Whether the sample's dtypes are those of a Task, not those of the medium.
    """

    medium: Medium
    select: Selection | None
    memory: int
    most: int
    sample: Columns
    sample_weight: Tensor | None
    numbers: Tensor
    members: Members
    parts: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, Labels]
    codes: Mapping[str, Labels]
    known: Known
    counted: int = 0
    converted: bool = False

    @property
    def size(self) -> int:
        """Number N of rows."""
        return self.medium.size

    @property
    def elsewhere(self) -> bool:
        """Whether the rows are in other processes, which sum them by ``total``."""
        return isinstance(self.medium, Remote)

    def total(self, function: Callable[..., tuple[Tensor, ...]], *arguments: Any) -> tuple[Tensor, ...]:
        """Sum of ``function(columns, number of the first row, *arguments)`` over whoever holds rows."""
        if isinstance(self.medium, Remote):
            empty = {name: column[:0] for name, column in self.sample.items()}
            return self.medium.total(self.members, self.codes, _at_home, empty, function, *arguments)
        return function(self.take(torch.arange(self.size)), 0, *arguments)

    @property
    def ordered(self) -> bool:
        """Whether every pass gives the rows in one order, also in another process."""
        return self.medium.ordered

    def chosen(self, choose: Choice, labels: Mapping[str, Sequence[Label]] | None, weight: str | None) -> Stored:
        """Only the columns that are chosen by name."""
        members = placed(self.medium, self.select, choose, weight, again=False)[0]
        if members == self.members and not labels and weight is None and not self.converted:
            return replace(self, known=replace(self.known, seen=set(), kept={}))  # another model checks them anew
        return stored(self.medium, self.select, choose, labels, weight, memory=self.memory)

    def number(self, at: int) -> int:
        """Number among all rows of a row of the sample."""
        return int(self.numbers[at])

    def like(self, sample: Columns) -> Stored:
        """The same rows read in the dtypes of this sample."""
        return replace(self, sample=sample, known=replace(self.known, digest="", kept={}), converted=True)

    def on(self, device: torch.device) -> Stored:
        """Where they are whatever the device: blocks go there one by one."""
        return self

    def unseen(self, start: int, stop: int) -> bool:
        """Whether some of these rows were not checked before; from now on they were."""
        return self.known.unseen(start, stop)

    def fingerprint(self) -> str:
        """Of the number of rows and of the names, types and values of all, in any order: copies have the same."""
        if not self.known.digest:
            self.known.digest = self._stamped()
        return self.known.digest

    def _stamped(self) -> str:
        if self.elsewhere:
            return spelled(self.sample, self.total(_stamp)[0])
        return spelled(self.sample, sum((added for _, added in self._read_all(0, self.size, stamped=True)), NO_STAMP))

    def whole(self) -> Columns:
        """All rows, in memory; weights as in ``blocks``."""
        self.check()
        pieces = [piece for piece, _ in self._read_all(0, self.size)]
        self.check()
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def blocks(self, start: int, stop: int, step: int, *, pin: bool) -> Iterator[Columns]:
        """Rows in blocks of ``step``; a thread reads the next ones ahead.

        Raises:
            OSError: The rows were removed or changed since they were opened, or cannot be read.
            Refusal: A value is infinite, does not fit 64 bits, or is missing among whole numbers.
        """
        self.check()
        # The first whole pass stamps the rows; where nothing but the rows themselves tells of a change, each does.
        unknown = not (self.known.state and self.known.digest) and (start, stop) == (0, self.size)
        total = NO_STAMP
        for chunk, added in self._read_all(start, stop, step, stamped=unknown):
            total = total + added
            for at in range(0, len(next(iter(chunk.values()))), step):
                piece = {name: column[at : at + step] for name, column in chunk.items()}
                yield {name: column.pin_memory() for name, column in piece.items()} if pin else piece
        self.check()
        if unknown:
            found = spelled(self.sample, total)
            self.known.digest = self.known.digest or found
            if found != self.known.digest:
                raise self._changed()

    def _read_all(
        self, start: int, stop: int, step: int = 1, *, stamped: bool = False
    ) -> Iterator[tuple[Columns, Tensor]]:
        """Pieces of several blocks with their stamps, where they are asked for."""
        length = step * max(1, self.most // step)
        if not stamped:
            self.known.cut(length)
        with self._cursor() as cursor:

            def read(span: tuple[int, int]) -> tuple[Columns, Tensor]:
                if not stamped and (kept := self.known.kept.get(span)) is not None:
                    return kept, NO_STAMP
                found = self._read(cursor, *span)
                if not stamped and isinstance(self.medium, Batches) and self.known.state:
                    self.known.keep(span, found, KEPT * self.memory)
                return found, stamp(found) if stamped else NO_STAMP

            yield from ahead(read, [(at, min(stop, at + length)) for at in range(start, stop, length)])

    def take(self, picked: Tensor) -> Columns:
        """Rows of given numbers, in that order; rows close together are read at once."""
        rows, back = torch.unique(picked.cpu(), return_inverse=True)
        apart = torch.cat([rows.new_zeros(1), (rows.diff() > GAP).long().cumsum(0)])
        if isinstance(self.medium, Remote):
            found = _at_home(self.medium.take(self.members, self.codes, rows), 0, self.sample, lambda some, _: some)
            return {name: column[back] for name, column in found.items()}
        counts = torch.unique_consecutive(torch.stack([apart, rows // self.most]), dim=1, return_counts=True)[1]
        self.check()
        with self._cursor() as cursor:

            def read(run: Tensor) -> Columns:
                found = self._read(cursor, int(run[0]), int(run[-1]) + 1)
                return {name: column[run - run[0]] for name, column in found.items()}

            pieces = list(ahead(read, rows.split(counts.tolist())))
        return {name: torch.cat([piece[name] for piece in pieces])[back] for name in pieces[0]}

    def check(self) -> None:
        """Refuses rows that are not those that were opened; what was only touched is stamped again.

        Raises:
            OSError: They were removed or changed.
        """
        try:
            now = state_of(self.medium)
        except FileNotFoundError as error:
            gone = error.filename or self.medium.where
            raise FileNotFoundError(
                f"{gone} was removed while its rows were needed; put it back and start again"
            ) from error
        if now != self.known.state:
            self.known.kept.clear()
            if not self.known.digest or self._stamped() != self.known.digest:
                raise self._changed()
            self.known.state = now

    def _changed(self) -> OSError:
        return OSError(
            f"{self.medium.where} was changed while its rows were needed: results would mix two versions; start again"
        )

    def _cursor(self) -> Any:
        return cursor_of(self.medium, self.members, self.codes)

    def _read(self, cursor: Read, start: int, stop: int) -> Columns:
        try:
            return assembled(cursor(start, stop), self.members, start, self.medium.where, self.sample)
        except Refusal:
            raise
        except Exception as error:  # of the library that reads
            self.check()
            raise OSError(
                f"{self.medium.where}: rows {start:,} to {stop:,} cannot be read: {one_line(error)}"
            ) from error


def on_disk(source: Source, *, columns: Selection | None = None, filter: Any = None, memory: int = MEMORY) -> Stored:
    """Rows that stay where they are, for ``Task(model, bayesdd.on_disk("rows.nc"))``.

    A Task given the bare path does so by itself above 512 MiB.

    Args:
        source: A .nc or .zarr file, whose first dimension is the rows; Parquet or Arrow files: one, a folder of them
            (``key=value`` folders are columns), or a pattern such as ``"rows/*.parquet"``; a query (``"SELECT ..."``,
            by DuckDB) or a DuckDB relation; a pyarrow dataset; a table of pyarrow or polars.
        columns: The columns to use, and what they are called, as of a Task; default all numbers.
        filter: Which rows of Parquet or Arrow files, as an expression of pyarrow: ``pc.field("year") > 2010``.
        memory: Bytes that blocks of rows may take, in float64, the one being read included; of tables each Task
            keeps three times as many more, decoded, between passes.

    Raises:
        FileNotFoundError: No such file.
        MissingPackage: A .zarr without the package zarr, a table without pyarrow, a query without duckdb.
        WrongType: A column is not numeric.
        Refusal: Another kind of file, a damaged one, no rows, columns that are not there or differ in length.

    Example:
        >>> rows = xr.Dataset({"x": (("row", "column"), x), "y": ("row", y)})
        >>> rows.to_netcdf("rows.nc")
        >>> bayesdd.Task(model, bayesdd.on_disk("rows.nc")).size
        200
    """
    medium: Medium | None = medium_of(source, filter)
    if medium is None:
        if not isinstance(source, str | os.PathLike):
            raise WrongType(f"on_disk() takes a path, a query or a table, got {type(source).__name__}: give it to Task")
        if Path(source).suffix not in ENGINES:
            kinds = endings([*ENGINES, *FORMATS])
            ending = Path(source).suffix or "no ending"
            raise Refusal(f"{source}: rows stay on disk in {kinds} files, not in {ending!r}")
        medium = grid(source)
    return stored(medium, columns, None, memory=memory)


def stored(
    medium: Medium,
    select: Selection | None,
    choose: Choice | None,
    labels: Mapping[str, Sequence[Label]] | None = None,
    weight: str | None = None,
    *,
    memory: int = MEMORY,
    again: bool = False,
) -> Stored:
    """As ``on_disk``, with a choice by name, labels and weights as in ``columns.table``."""
    where, schema = medium.where, medium.schema
    members, parts, counted = placed(medium, select, choose, weight, again=again)
    members |= counted
    raws = [raw for group in members.values() for raw in group.values()]
    if not raws:
        raise Refusal(f"{where}: no column of numbers is left of {sorted(map(str, schema))}")
    medium.check(raws)
    if not medium.size:
        raise Refusal(f"{where}: no rows; at least one is needed")
    found: dict[str, Labels] = {}
    codes: dict[str, Labels] = {}
    for name, group in members.items():
        for index, raw in group.items():
            if schema[raw] != "numbers":
                spelled_so = element(name, index)
                codes[raw] = found[spelled_so] = tuple((labels or {}).get(spelled_so) or medium.labels(raw))
    parts = {name: some for name, some in parts.items() if name in members}
    one = torch.zeros(1, dtype=torch.int64)
    rows = Stored(medium, select, memory, 1, {}, None, one, members, parts, found, codes, Known(state_of(medium)))
    row_bytes = max(8, 8 * sum(column.numel() for column in rows.take(one).values()))
    numbers = _spread(medium.size, max(2, min(medium.size, SAMPLE_ROWS, SAMPLE_BYTES // row_bytes)))
    rows = replace(rows, numbers=numbers, most=max(1, memory // (IN_FLIGHT * row_bytes)))
    sample, weights = separated(rows.take(numbers))
    for name, column in sample.items():
        refuse_missing(column, f"{where}: in the {len(column):,} rows looked at, column {name!r}")
    return replace(rows, sample=sample, sample_weight=weights)


def placed(
    medium: Medium, select: Selection | None, choose: Choice | None, weight: str | None, *, again: bool
) -> tuple[Members, dict[str, tuple[str, ...]], Members]:
    """The members that are chosen, what their array columns are made of, and the member that the weights are."""
    where, schema, every = medium.where, medium.schema, medium.members()
    counted: Members = {} if weight is None else {WEIGHT: weighing(every, weight, where)}
    members, parts = (every, {}) if select is None else selected(every, select, where, again=again)
    for raw in counted.get(WEIGHT, {}).values():
        if schema[raw] != "numbers":
            raise WrongType(
                f"{where}: weight= names {weight!r}, which holds {schema[raw]}; a weight is a positive number"
            )
    if choose is None:
        taken = [name for name in members if select or all(schema[raw] == "numbers" for raw in members[name].values())]
    else:
        taken = choose([name for name in members if name != weight or select])
    return {name: members[name] for name in taken}, parts, counted


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


def _at_home(columns: Columns, first: int, like: Columns, function: Callable[..., Any], *arguments: Any) -> Any:
    """Where a partition is: its columns in the sample's dtypes, given to a function."""
    found = {name: cast(c, like[name], f"column {name!r}", first) if name in like else c for name, c in columns.items()}
    return function(found, first, *arguments)


def _stamp(block: Columns, first: int) -> tuple[Tensor, ...]:
    return (stamp(block),)


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
