"""Rows of a Spark DataFrame: each of its partitions is turned into numbers once, kept by Spark, and summed where it is.

A pass is one job of ``mapInArrow``. What is kept (in memory, or on the workers' disks where it does not fit) is made
again when a worker is lost, and its stamp says whether it is still the same.
"""

from __future__ import annotations

import pickle
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeAlias

import torch
from torch import Tensor

from bayesdd.data.arrow import MOST_LABELS, package, refuse_many, unit_of, values_of
from bayesdd.data.columns import Columns
from bayesdd.data.files import one_line
from bayesdd.data.media import Sums, assembled, variables_of
from bayesdd.data.names import Members, members_of
from bayesdd.data.stamp import stamp
from bayesdd.data.values import Labels, refuse_disguised
from bayesdd.numerics.refusal import MissingPackage, Refusal, WrongType

Stamps: TypeAlias = tuple[int, ...]  # rows and the two sums of their stamp
Work: TypeAlias = Callable[[int, Iterator[Columns]], Any]  # number of a partition, its rows piece by piece

WHERE = "Spark DataFrame"
PIECE = 2**16  # rows: a pass holds one piece of them at a time, Spark keeps them in batches of 4 MB
_WHOLE = "tinyint", "smallint", "int", "bigint"
_NUMBERS = (*_WHOLE, "float", "double", "boolean")
_LEFT: SimpleQueue[Any] = SimpleQueue()  # frames that Spark need not keep any more


@dataclass(frozen=True, eq=False)
class Kept:
    """Partitions as numbers: a frame of pickled pieces, kept by Spark, and number of a partition -> its stamp."""

    frame: Any
    stamps: Mapping[int, Stamps]

    @property
    def ends(self) -> list[int]:
        """Number of the row past the last of each partition, in their order."""
        return list(accumulate(rows for rows, *_ in self.stamps.values()))


@dataclass(frozen=True, eq=False)
class Spark:
    """A Spark DataFrame; made by ``spark``.

    Attributes:
        frame: The data frame.
        size: Number N of rows.
        kept: Columns and labels -> the partitions as numbers.
    """

    frame: Any
    size: int
    kept: dict[str, Kept] = field(default_factory=dict)
    where: str = WHERE
    ordered: bool = True

    @property
    def schema(self) -> Mapping[str, str]:
        """Column -> ``numbers``, ``labels``, or Spark's name of what it holds."""
        return {name: _sort(kind) for name, kind in self.frame.dtypes}

    def members(self) -> Members:
        """Columns ``x[0]``, ``x[1]``, ... are one array column."""
        return members_of(self.frame.columns, self.where)

    def check(self, variables: Sequence[str]) -> None:
        """Refuses columns that are no numbers and no text."""
        for name in variables:
            if (kind := self.schema[name]) not in ("numbers", "labels"):
                ways = {
                    "timestamp": "days since the first, as by datediff",
                    "date": "days since the first, as by datediff",
                    "vector": "pyspark.ml.functions.vector_to_array of it",
                }
                how = next((way for start, way in ways.items() if kind.startswith(start)), "numbers, text or arrays")
                raise WrongType(f"{self.where}: column {name!r} holds {kind}; give {how}, or leave it out by columns=")

    def labels(self, variable: str) -> Labels:
        """Those that occur, sorted."""
        with told():
            found = self.frame.select(_quoted(variable)).distinct().limit(MOST_LABELS + 2).collect()
        labels = tuple(sorted({row[0] for row in found} - {None, ""}))
        refuse_many(len(labels), f"{self.where}: column {variable!r}")
        if not labels:
            raise Refusal(f"{self.where}: column {variable!r} has every value missing; leave it out")
        refuse_disguised(labels, f"{self.where}: column {variable!r}")
        return labels

    def take(self, members: Members, labels: Mapping[str, Labels], rows: Tensor) -> Columns:
        """Columns of rows of ascending numbers, brought here."""
        kept = self._kept(members, labels)
        cuts = [0, *torch.searchsorted(rows, torch.tensor(kept.ends)).tolist()]
        wanted = {}
        for at, (place, (count, *_)) in enumerate(kept.stamps.items()):
            if cuts[at] < cuts[at + 1]:
                wanted[place] = (rows[cuts[at] : cuts[at + 1]] - (kept.ends[at] - count)).numpy()

        def work(place: int, pieces: Iterator[Columns]) -> Columns | None:
            return _taken(pieces, wanted[place]) if place in wanted else None

        found = [some for some in self._run(kept, work) if some is not None]
        return {name: torch.cat([some[name] for some in found]) for name in found[0]}

    def total(
        self, members: Members, labels: Mapping[str, Labels], function: Callable[..., Sums], *arguments: Any
    ) -> Sums:
        """Sum of ``function(columns, number of the first row, *arguments)``, taken where the rows are.

        Added within each partition, then in their order, so that it does not depend on which worker was first.
        """
        kept = self._kept(members, labels)
        first = dict(zip(kept.stamps, [0, *kept.ends], strict=False))

        def work(place: int, pieces: Iterator[Columns]) -> Sums:
            return _summed(pieces, first[place], function, arguments)

        return tuple(torch.stack(parts).sum(0) for parts in zip(*self._run(kept, work), strict=True))

    def counted(self, variables: Sequence[str], weight: str | None, names: tuple[str, str], most: int) -> Any:
        """As of ``grouped.Counting``, by ``groupBy``."""
        functions = package("pyspark.sql.functions")
        with told():
            one = functions.lit(1.0) if weight is None else self.frame[_quoted(weight)].cast("double")
            one = functions.coalesce(one, functions.lit(0.0))
            most_weight = 1.0 if weight is None else self.frame.agg(functions.max(one)).first()[0]
            unit = unit_of(most_weight, f"{self.where}: column {weight!r}")
            whole = functions.sum(functions.round(one / unit).cast("decimal(38,0)")).cast("double") * unit
            every = self.frame.groupBy([_quoted(name) for name in variables])
            found = every.agg(whole.alias(names[0]), functions.min(one).alias(names[1]))
            return found.limit(most).toArrow()

    def _run(self, kept: Kept, work: Work) -> list[Any]:
        found = _collected(kept.frame, work)
        if {place: stamps for place, (stamps, _) in found.items()} != kept.stamps:
            raise OSError(
                f"{self.where} was changed while its rows were needed: results would mix two versions; start again"
            )
        return [answer for _, answer in found.values()]

    def _kept(self, members: Members, labels: Mapping[str, Labels]) -> Kept:
        key = repr((members, dict(labels)))
        if key not in self.kept:
            with told():
                some = self.frame.select([_quoted(name) for name in variables_of(members)])
                pieces = some.mapInArrow(_numbers(members, dict(labels)), "place bigint, held binary").persist()
                _dropping()
                weakref.finalize(self, _LEFT.put, pieces).atexit = False
            try:
                stamps = {place: one for place, (one, _) in _collected(pieces, _nothing).items()}
            except BaseException:
                _dropped(pieces)
                raise
            if (count := sum(rows for rows, *_ in stamps.values())) != self.size:
                raise OSError(f"{self.where}: it gives {count:,} rows, and gave {self.size:,} before; start again")
            self.kept[key] = Kept(pieces, stamps)
        return self.kept[key]


def spark(frame: Any) -> Spark:
    """The rows of a Spark DataFrame, in the session that it belongs to.

    Raises:
        WrongType: A stream.
        OSError: It cannot be counted: its query fails, or the cluster does not answer.
    """
    if frame.isStreaming:
        raise WrongType(f"{WHERE}: a stream has no end, and rows are passed over many times: write it to Parquet first")
    with told():
        return Spark(frame, frame.count())


def is_spark(source: Any) -> bool:
    """Whether something is a data frame of pyspark."""
    return type(source).__module__.startswith("pyspark.sql") and hasattr(source, "mapInArrow")


def _sort(kind: str) -> str:
    if kind.startswith("array<"):
        return "numbers" if _sort(kind[6:-1]) == "numbers" else kind
    if kind in _NUMBERS or kind.startswith("decimal"):
        return "numbers"
    return "labels" if kind == "string" or kind.startswith(("varchar", "char")) else kind


def _quoted(name: str) -> str:
    """A column's name as Spark reads it: without quotes ``x[0]`` is an element of ``x``."""
    return f"`{name.replace('`', '``')}`"


@cache
def _dropping() -> None:
    """Starts the thread that lets go of what is left.

    Not done where it is left: garbage is collected anywhere, also amid a call to Spark, and a call within a call
    breaks the connection of both.
    """

    def work() -> None:
        while True:
            _dropped(_LEFT.get())

    Thread(target=work, name="bayesdd: rows that Spark need not keep", daemon=True).start()


def _dropped(pieces: Any) -> None:
    with suppress(Exception):  # the session may have ended
        pieces.unpersist()


# On the workers.


def _numbers(members: Members, labels: dict[str, Labels]) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """Arrow batches to pickled pieces: the rows' stamps and their columns, or what is wrong with them."""

    def work(batches: Iterable[Any]) -> Iterator[Any]:
        place, first = _place(), 0
        for some in _gathered(batches):
            try:
                where, count = f"{WHERE}, partition {place}", sum(map(len, some))
                values = {
                    name: values_of(
                        [one.column(name) for one in some], f"{where}: column {name!r}", labels.get(name), first
                    )
                    for name in variables_of(members)
                }
                columns = assembled(values, members, first, where)
                held: Any = (count, *stamp(columns).tolist()), {name: one.numpy() for name, one in columns.items()}
                first += count
            except (Refusal, MemoryError) as error:
                held = error
            yield _answer(place, "held", held)

    return work


def _gathered(batches: Iterable[Any]) -> Iterator[list[Any]]:
    """Batches together until they have the rows of a piece."""
    some: list[Any] = []
    for batch in batches:
        if len(batch):
            some.append(batch)
        if sum(map(len, some)) >= PIECE:
            yield some
            some = []
    if some:
        yield some


def _collected(frame: Any, work: Work) -> dict[int, tuple[Stamps, Any]]:
    """What work gives for each partition that has rows, by its number, and the stamps of the rows that it saw.

    Raises:
        Exception: As work raised it there.
    """

    def passing(batches: Iterable[Any]) -> Iterator[Any]:
        stamps = torch.zeros(3, dtype=torch.int64)
        place = -1

        def pieces() -> Iterator[Columns]:
            nonlocal stamps, place
            for batch in batches:
                for number, held in zip(batch.column("place").to_pylist(), batch.column("held"), strict=True):
                    place, piece = number, pickle.loads(held.as_buffer())
                    if isinstance(piece, BaseException):
                        raise piece
                    stamps = stamps + torch.tensor(piece[0])
                    yield {name: torch.from_numpy(one) for name, one in piece[1].items()}

        coming = pieces()
        try:
            if (piece := next(coming, None)) is None:
                return
            found = work(place, _chained(piece, coming))
            for _ in coming:  # for their stamps
                pass
            answer: Any = tuple(stamps.tolist()), found
        except (Refusal, MemoryError, ModuleNotFoundError) as error:  # no fault of the worker: not to be tried again
            answer = error
        yield _answer(place, "found", answer)

    with told():
        rows = frame.mapInArrow(passing, "place bigint, found binary").collect()
        found = {row["place"]: pickle.loads(row["found"]) for row in rows}
        for _, answer in sorted(found.items()):
            if isinstance(answer, BaseException):
                raise answer
    return dict(sorted(found.items()))


def _chained(first: Columns, others: Iterator[Columns]) -> Iterator[Columns]:
    yield first
    yield from others


def _place() -> int:
    number: int = package("pyspark").TaskContext.get().partitionId()
    return number


def _answer(place: int, name: str, answer: Any) -> Any:
    pa = package("pyarrow")
    return pa.record_batch(
        {"place": pa.array([place], pa.int64()), name: pa.array([pickle.dumps(answer, 5)], pa.binary())}
    )


def _nothing(place: int, pieces: Iterator[Columns]) -> None:
    """For the stamps alone."""


def _summed(pieces: Iterator[Columns], first: int, function: Callable[..., Sums], arguments: tuple[Any, ...]) -> Sums:
    total: Sums = ()
    for columns in pieces:
        found = function(columns, first, *arguments)
        total = tuple(a + b for a, b in zip(total, found, strict=True)) if total else found
        first += len(next(iter(columns.values())))
    return total


def _taken(pieces: Iterator[Columns], rows: Any) -> Columns:
    """Rows of ascending numbers within a partition."""
    found, first, numbers = [], 0, rows.tolist()
    for columns in pieces:
        last = first + len(next(iter(columns.values())))
        low, high = (bisect_right(numbers, end - 1) for end in (first, last))
        if low < high:
            picked = torch.from_numpy(rows[low:high] - first)
            found.append({name: one[picked] for name, one in columns.items()})
        first = last
    return {name: torch.cat([some[name] for some in found]) for name in found[0]}


@contextmanager
def told() -> Iterator[None]:
    """What Spark raises, in one line.

    Raises:
        OSError: A query fails, a partition cannot be read, or the cluster does not answer.
        Refusal: What was computed there cannot be; as it was raised there.
    """
    try:
        yield
    except (Refusal, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"Spark's workers cannot import {error.name!r}: install it there, or send it by "
            f"spark.addArtifact('{error.name}.py', pyfile=True)"
        ) from error
    except Exception as error:  # of Spark, its connections, and whatever reads a partition
        lines = str(error).strip().splitlines()
        inside = isinstance(error, package("pyspark.errors").PythonException)  # ends with what went wrong in a worker
        what = lines[-1] if lines and inside else one_line(error)
        raise OSError(f"Spark: the workers could not do it: {what[:400]}") from error
