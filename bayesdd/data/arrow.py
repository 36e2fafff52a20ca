"""Arrow record batches as rows: numbers become float64 or int64 (nulls NaN), text and dictionaries codes of labels."""

from __future__ import annotations

import importlib
import math
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesdd.data.files import one_line
from bayesdd.data.media import Read, state, variables_of
from bayesdd.data.names import Members, members_of
from bayesdd.data.values import Labels, refuse_disguised, tensor
from bayesdd.numerics.refusal import MissingPackage, Refusal, WrongType

WEIGHT_BITS = 74  # of the largest weight: 21 more than it has, and 2^52 of them have a sum below 2^127
MOST_LABELS = 1000  # of a column of text: more are names or identifiers, which no model takes as categories


@dataclass(frozen=True, eq=False)
class Batches:
    """Rows that come as Arrow record batches; made by ``files``, ``query`` and ``table``.

    Attributes:
        where: The path or query, in messages.
        types: Arrow's schema.
        pieces: Rows of each piece, such as a row group.
        batches: Piece, columns -> its record batches.
        paths: Files whose state is watched.
        ordered: Whether every pass gives the rows in one order.
        differing: Column that files do not share -> in words how.
        relation: Makes DuckDB's relation of the rows.
    """

    where: str
    types: Any
    pieces: tuple[int, ...]
    batches: Callable[[int, list[str]], Generator[Any, None, None]]
    paths: tuple[Path, ...] = ()
    ordered: bool = True
    differing: Mapping[str, str] = field(default_factory=dict)
    relation: Callable[[], Any] | None = None

    @property
    def size(self) -> int:
        """Number N of rows."""
        return sum(self.pieces)

    @property
    def schema(self) -> Mapping[str, str]:
        """Column -> ``numbers``, ``labels``, or Arrow's name of what it holds."""
        return {one.name: sort_of(one.type) for one in self.types}

    def members(self) -> Members:
        """Columns ``x[0]``, ``x[1]``, ... are one array column."""
        return members_of(self.types.names, self.where)

    def check(self, variables: Sequence[str]) -> None:
        """Refuses columns that differ between files, and such as are no numbers and no text."""
        for name in variables:
            if name in self.differing:
                raise Refusal(f"{self.where}: column {name!r} {self.differing[name]}")
            kind = self.schema[name]
            if kind not in ("numbers", "labels"):
                times = kind.startswith(("timestamp", "date", "time", "duration"))
                how = "days since the first" if times else "numbers, text or lists of numbers"
                raise WrongType(f"{self.where}: column {name!r} holds {kind}; give {how}, or leave it out by columns=")

    def labels(self, variable: str) -> Labels:
        """Those of a dictionary in its order where all batches have the same, else sorted."""
        found: dict[tuple[Any, ...], None] = {}
        every: set[Any] = set()
        for piece in range(len(self.pieces)):
            for batch in self.batches(piece, [variable]):
                column = batch.column(variable)
                some = column.dictionary if hasattr(column, "dictionary") else column.unique()
                found[tuple(some.to_pylist())] = None
                every |= set(some.to_pylist())
                refuse_many(len(every), f"{self.where}: column {variable!r}")
        dictionary = hasattr(self.types.field(variable).type, "value_type")
        kept = next(iter(found)) if len(found) == 1 and dictionary else sorted(every - {None, ""})
        labels = tuple(str(label) for label in kept if label not in (None, ""))
        if not labels:
            raise Refusal(f"{self.where}: column {variable!r} has every value missing; leave it out")
        refuse_disguised(labels, f"{self.where}: column {variable!r}")
        return labels

    def counted(self, variables: Sequence[str], weight: str | None, names: tuple[str, str], most: int) -> Any:
        """As of ``grouped.Counting``, by DuckDB."""
        quoted = [_quoted(name) for name in variables]
        one = "1.0::DOUBLE" if weight is None else f"coalesce({_quoted(weight)}::DOUBLE, 0.0)"
        assert self.relation is not None
        failing = "DuckDB cannot count its equal rows"
        with telling(self.where, failing):
            ((most_weight,),) = self.relation().aggregate(f"max({one})").fetchall() if weight else [(1.0,)]
        unit = unit_of(most_weight, f"{self.where}: column {weight!r}")
        with telling(self.where, failing):
            whole = f"sum(CAST(round({one} * {1 / unit!r}) AS HUGEINT))::DOUBLE * {unit!r}"
            sums = f"{whole} AS {_quoted(names[0])}, min({one}) AS {_quoted(names[1])}"
            every = self.relation().aggregate(f"{', '.join(quoted)}, {sums}", ", ".join(quoted))
            return every.limit(most).to_arrow_table()

    def state(self) -> tuple[int, ...]:
        """Of the files; none of a query."""
        return state(self.paths) if self.paths else ()

    @contextmanager
    def cursor(self, members: Members, labels: Mapping[str, Labels]) -> Iterator[Read]:
        """Batches are read as they are needed, and kept only until their rows were given."""
        cursor = _Cursor(self, variables_of(members), labels)
        try:
            yield cursor
        finally:
            cursor.close()


class _Cursor:
    def __init__(self, source: Batches, names: list[str], labels: Mapping[str, Labels]) -> None:
        self.source, self.names, self.labels = source, names, labels
        self.ends = list(accumulate(source.pieces))
        self.at = 0  # number of the first row of those held
        self.held: list[Any] = []
        self.piece = -1
        self.coming: Generator[Any, None, None] | None = None

    def __call__(self, start: int, stop: int) -> Mapping[str, Tensor]:
        """Rows start to stop.

        Raises:
            OSError: A piece has other rows than it had.
        """
        piece = bisect_right(self.ends, start)
        if piece > self.piece:
            self._open(piece)
        while self.at + sum(map(len, self.held)) < stop:
            batch = None if self.coming is None else next(self.coming, None)
            if batch is None:
                self._end()
            else:
                self.held.append(batch)
            while self.held and self.at + len(self.held[0]) <= start:
                self.at += len(self.held.pop(0))
        found, at = [], self.at
        for batch in self.held:
            low, high = max(start - at, 0), min(stop - at, len(batch))
            if low < high:
                found.append(batch.slice(low, high - low))
            at += len(batch)
        while self.held and self.at + len(self.held[0]) <= stop:
            self.at += len(self.held.pop(0))
        what = f"{self.source.where}: column"
        return {
            name: values_of([one.column(name) for one in found], f"{what} {name!r}", self.labels.get(name), start)
            for name in self.names
        }

    def close(self) -> None:
        """Ends a query that was not read to its end."""
        if self.coming is not None:
            self.coming.close()

    def _open(self, piece: int) -> None:
        self.close()
        self.piece, self.held = piece, []
        self.at = self.ends[piece] - self.source.pieces[piece]
        self.coming = self.source.batches(piece, self.names)

    def _end(self) -> None:
        """The next piece, if this one had its rows."""
        if self.at + sum(map(len, self.held)) != self.ends[self.piece]:
            raise OSError(f"{self.source.where}: it gives other rows than before; results would mix them; start again")
        self.piece += 1
        self.coming = self.source.batches(self.piece, self.names)


def sort_of(kind: Any) -> str:
    """What columns of one of Arrow's types are taken for."""
    types = package("pyarrow").types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return "numbers" if _is_number(kind.value_type) else str(kind)
    if types.is_dictionary(kind):
        return "numbers" if _is_number(kind.value_type) else sort_of(kind.value_type)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "labels"
    return "numbers" if _is_number(kind) else str(kind)


def _is_number(kind: Any) -> bool:
    types = package("pyarrow").types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind))


def refuse_many(count: int, what: str) -> None:
    """Text of more than ``MOST_LABELS`` kinds is no category."""
    if count > MOST_LABELS:
        raise Refusal(
            f"{what} holds text of more than {MOST_LABELS:,} kinds; a category has few: give codes, or leave it out by "
            "columns="
        )


def values_of(chunks: Sequence[Any], what: str, labels: Labels | None, first: int) -> Tensor:
    """Arrow arrays one after the other as one tensor, nulls NaN; ``first`` is the number of their first row."""
    if labels is not None:
        return tensor(np.concatenate([_codes(chunk, labels, what) for chunk in chunks]), what)
    if hasattr(chunks[0].type, "value_type") and not hasattr(chunks[0].type, "index_type"):
        return _lists(chunks, what, first)
    found = np.concatenate([_numbers(chunk) for chunk in chunks])
    return torch.from_numpy(found) if found.dtype in (np.float64, np.int64) else tensor(found, what)


def _numbers(chunk: Any) -> np.ndarray[Any, Any]:
    pa = package("pyarrow")
    if hasattr(chunk, "dictionary"):
        chunk = chunk.dictionary_decode()
    if pa.types.is_decimal(chunk.type):
        chunk = chunk.cast(pa.float64())
    if pa.types.is_boolean(chunk.type):
        chunk = chunk.cast(pa.int8())
    found: np.ndarray[Any, Any] = chunk.to_numpy(zero_copy_only=False)
    return found


def _lists(chunks: Sequence[Any], what: str, first: int) -> Tensor:
    """Lists of one length as the last axis; a missing list is a row of NaN."""
    compute = package("pyarrow.compute")
    widths = np.concatenate([_numbers(compute.list_value_length(chunk)) for chunk in chunks])
    there = ~np.isnan(widths) if widths.dtype.kind == "f" else np.ones(len(widths), dtype=bool)
    width = int(widths[there][0]) if there.any() else 0
    if (odd := there & (widths != width)).any() or not width:
        row = int(odd.argmax())
        raise Refusal(
            f"{what} has a list of {widths[row]:g} numbers in row {first + row} (from 0), others of {width}; lists of "
            "a column need one length: fill them with nulls"
        )
    flat = tensor(np.concatenate([_numbers(chunk.flatten()) for chunk in chunks]), what).reshape(-1, width)
    if there.all():
        return flat
    found = torch.full((len(widths), width), torch.nan, dtype=torch.float64)
    found[torch.from_numpy(there)] = flat.double()
    return found


def _codes(chunk: Any, labels: Labels, what: str) -> np.ndarray[Any, Any]:
    """Codes of text among its labels; empty text is missing."""
    pa, compute = package("pyarrow"), package("pyarrow.compute")
    words = (chunk.dictionary if hasattr(chunk, "dictionary") else chunk).cast(pa.string())
    codes = compute.index_in(words, value_set=pa.array(list(map(str, labels)), pa.string()))
    strange = compute.and_(codes.is_null(), compute.not_equal(words, ""))
    if hasattr(chunk, "dictionary"):
        words, codes, strange = (each.take(chunk.indices) for each in (words, codes, strange))
    if len(odd := words.filter(strange)):
        raise Refusal(
            f"{what} has the label {odd[0].as_py()!r}, which is none of {list(labels)}; leave such rows out, or name "
            "all labels by labels="
        )
    return _numbers(codes)


def _quoted(name: str) -> str:
    """A column's name as SQL reads it."""
    return '"' + name.replace('"', '""') + '"'


def unit_of(most: float | None, what: str) -> float:
    """A power of two of which weights are taken as whole multiples, so that sums in any order are equal.

    Args:
        most: The largest weight; None where there are no rows.
        what: Names the column.

    Raises:
        Refusal: It is infinite or no number.
    """
    if most is not None and not math.isfinite(most):
        raise Refusal(f"{what} has a weight of {most:g}; weights are positive numbers: leave such rows out")
    return 2.0 ** (math.frexp(most or 1.0)[1] - WEIGHT_BITS)


@contextmanager
def telling(where: str, what: str = "it cannot be read") -> Iterator[None]:
    """Errors of other libraries, which have many types, as a refusal."""
    try:
        yield
    except (FileNotFoundError, MissingPackage):
        raise
    except Exception as error:
        raise Refusal(f"{where}: {what}: {one_line(error)[:400]}") from error


def package(name: str) -> ModuleType:
    """A package of the extra ``tables``.

    Raises:
        MissingPackage: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise MissingPackage(f"such tables need the package {package}: pip install 'bayesdd[tables]'") from error
