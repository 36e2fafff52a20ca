"""Tables of other libraries, by Arrow: Parquet and Arrow files, DuckDB queries, polars, pyarrow.

All give record batches, of which numbers become float64 or int64 (nulls NaN), text and dictionaries codes of their
labels. Row groups are read one after the other, and only the columns that are taken.
"""

from __future__ import annotations

import glob
import importlib
import os
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
from bayesdd.data.names import QUERY, Members, members_of
from bayesdd.data.values import Labels, refuse_disguised, tensor
from bayesdd.numerics.refusal import MissingPackage, Refusal, WrongType

FORMATS = {".parquet": "parquet", ".pq": "parquet", ".arrow": "ipc", ".feather": "ipc"}
BATCH = 2**17  # rows: smaller batches cost more calls, larger ones more memory
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
    """

    where: str
    types: Any
    pieces: tuple[int, ...]
    batches: Callable[[int, list[str]], Generator[Any, None, None]]
    paths: tuple[Path, ...] = ()
    ordered: bool = True
    differing: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number N of rows."""
        return sum(self.pieces)

    @property
    def schema(self) -> Mapping[str, str]:
        """Column -> ``numbers``, ``labels``, or Arrow's name of what it holds."""
        return {one.name: _sort(one.type) for one in self.types}

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
                if len(every) > MOST_LABELS:
                    raise Refusal(
                        f"{self.where}: column {variable!r} holds text of more than {MOST_LABELS:,} kinds; a category "
                        "has few: give codes, or leave it out by columns="
                    )
        dictionary = hasattr(self.types.field(variable).type, "value_type")
        kept = next(iter(found)) if len(found) == 1 and dictionary else sorted(every - {None, ""})
        labels = tuple(str(label) for label in kept if label not in (None, ""))
        if not labels:
            raise Refusal(f"{self.where}: column {variable!r} has every value missing; leave it out")
        refuse_disguised(labels, f"{self.where}: column {variable!r}")
        return labels

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
            name: _column([one.column(name) for one in found], f"{what} {name!r}", self.labels.get(name), start)
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


def _sort(kind: Any) -> str:
    """What columns of one of Arrow's types are taken for."""
    types = _package("pyarrow").types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return "numbers" if _is_number(kind.value_type) else str(kind)
    if types.is_dictionary(kind):
        return "numbers" if _is_number(kind.value_type) else _sort(kind.value_type)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "labels"
    return "numbers" if _is_number(kind) else str(kind)


def _is_number(kind: Any) -> bool:
    types = _package("pyarrow").types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind))


def _column(chunks: Sequence[Any], what: str, labels: Labels | None, first: int) -> Tensor:
    """Arrow arrays one after the other as one tensor, nulls NaN; ``first`` is the number of their first row."""
    if labels is not None:
        return tensor(np.concatenate([_codes(chunk, labels, what) for chunk in chunks]), what)
    if hasattr(chunks[0].type, "value_type") and not hasattr(chunks[0].type, "index_type"):
        return _lists(chunks, what, first)
    found = np.concatenate([_numbers(chunk) for chunk in chunks])
    return torch.from_numpy(found) if found.dtype in (np.float64, np.int64) else tensor(found, what)


def _numbers(chunk: Any) -> np.ndarray[Any, Any]:
    pa = _package("pyarrow")
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
    compute = _package("pyarrow.compute")
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
    pa, compute = _package("pyarrow"), _package("pyarrow.compute")
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


def medium_of(source: Any, filter: Any = None) -> Batches | None:
    """The medium of what is a table of Arrow, DuckDB or a library that speaks Arrow; None of anything else.

    Args:
        source: A path, folder or pattern of Parquet or Arrow files, a query (``SELECT ...``, ``FROM ...``), a DuckDB
            relation, a pyarrow dataset, or a table with Arrow's interface, such as one of polars or pyarrow.
        filter: pyarrow's expression of the rows to take; of files and datasets.

    Raises:
        FileNotFoundError, MissingPackage, Refusal: No such file, no package, damaged files, a query that fails.
    """
    found = None
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        if QUERY.match(text) and not os.path.exists(text):
            found = query(text)
        elif Path(text).suffix in FORMATS or (os.path.isdir(text) and Path(text).suffix != ".zarr"):
            return files(text, filter)
    elif type(source).__name__ == "DuckDBPyRelation":
        found = query(source)
    elif hasattr(source, "get_fragments"):
        return dataset(source, "dataset", filter)
    elif hasattr(source, "collect_schema") and hasattr(source, "collect") and not hasattr(source, "__arrow_c_stream__"):
        raise WrongType("a table that is not computed yet cannot be taken: give its .collect(), or write it to Parquet")
    elif hasattr(source, "__arrow_c_stream__") and not type(source).__module__.startswith("pandas"):
        found = table(_package("pyarrow").table(source))
    if filter is not None:
        raise Refusal("filter= takes rows of Parquet and Arrow files; filter others where they are, as by WHERE")
    return found


def files(path: str, filter: Any = None) -> Batches:
    """Parquet or Arrow files: one, a folder of them (with ``key=value`` folders as columns), or a pattern.

    Raises:
        FileNotFoundError: No such file.
        Refusal: Files of different formats, or damaged ones.
    """
    if os.path.isdir(path):
        paths = [found for found in sorted(Path(path).rglob("*")) if found.suffix in FORMATS]
    elif os.path.exists(path):
        paths = [Path(path)]
    else:
        paths = [Path(found) for found in sorted(glob.glob(path, recursive=True))]
    if not paths:
        raise FileNotFoundError(f"{path}: no such file{'s of Parquet or Arrow' if set(path) & set('*?') else ''}")
    formats = {FORMATS.get(one.suffix, one.suffix) for one in paths}
    if len(formats) > 1 or not formats <= set(FORMATS.values()):
        raise Refusal(f"{path}: files of one format are needed, Parquet or Arrow, got {sorted(formats)}")
    arrow = _package("pyarrow.dataset")
    hive = arrow.HivePartitioning.discover(infer_dictionary=True)
    with _one_line(path):
        made = arrow.dataset([str(one) for one in paths], format=formats.pop(), partitioning=hive)
    return dataset(made, path, filter)


def dataset(source: Any, where: str, filter: Any = None) -> Batches:
    """A pyarrow dataset, a row group a piece.

    Raises:
        Refusal: A file is damaged, or holds no such columns as the filter names.
    """
    pa = _package("pyarrow")
    schemas, fragments, counts = {}, [], []
    with _one_line(where):
        found = list(source.get_fragments(filter=filter))
    for one in found:
        with _one_line(getattr(one, "path", where)):
            schemas[getattr(one, "path", where)] = one.physical_schema
    with _one_line(where):  # names are decoded here
        differing = _differing(source.schema, schemas)
        kept = [[one for one in own if one.name not in differing] for own in (source.schema, *schemas.values())]
        equal = [pa.schema(fields) for fields in kept]
        whole = pa.unify_schemas(equal, promote_options="permissive")
    whole = pa.schema(
        [source.schema.field(one.name) if one.name in differing else whole.field(one.name) for one in source.schema]
    )
    for one in found:
        with _one_line(getattr(one, "path", where)):
            for part in one.split_by_row_group() if hasattr(one, "split_by_row_group") else [one]:
                known = filter is None and getattr(part, "row_groups", None)
                count = known[0].num_rows if known else part.scanner(schema=whole, filter=filter).count_rows()
                if count:
                    fragments.append(part)
                    counts.append(count)

    def batches(piece: int, names: list[str]) -> Generator[Any, None, None]:
        settings = {"columns": names, "filter": filter, "batch_size": BATCH, "batch_readahead": 1}
        yield from fragments[piece].scanner(schema=whole, use_threads=False, **settings).to_batches()

    return Batches(where, whole, tuple(counts), batches, tuple(map(Path, schemas)), differing=differing)


def _differing(schema: Any, schemas: Mapping[str, Any]) -> dict[str, str]:
    """Columns that some file lacks, or holds as something else -> in words which and how."""
    differing: dict[str, str] = {}
    for one in schema:
        for name, own in schemas.items() if any(one.name in each.names for each in schemas.values()) else ():
            sort = _sort(own.field(one.name).type) if one.name in own.names else None
            if sort != _sort(one.type):
                what = f"holds {sort} in {name}, {_sort(one.type)} elsewhere" if sort else f"is not in {name}"
                differing[one.name] = f"{what}; files of one table need equal columns: leave it out, or mend the file"
                break
    return differing


def query(source: Any) -> Batches:
    """Rows of a DuckDB query: SQL over files, in a connection of its own, or a relation of the user's.

    Raises:
        Refusal: The query fails, or gives no table.
    """
    duckdb = _package("duckdb")
    text = " ".join(str(source if isinstance(source, str) else "of a relation").split())
    where = f"query {text if len(text) <= 60 else text[:57] + '...'!r}" if isinstance(source, str) else "query"
    # Without replacements: names in the query are tables and files, never variables of Python.
    base = duckdb.connect(config={"python_enable_replacements": False}) if isinstance(source, str) else None

    def relation() -> Any:
        """A connection can hold one open result: passes over a query of text get one each."""
        return source if base is None else base.cursor().sql(source)

    with _one_line(where, "it fails"):
        if relation() is None:
            raise Refusal("it gives no table; SELECT what the rows are")
        types = relation().limit(0).to_arrow_table().schema
        ((size,),) = relation().aggregate("count(*)").fetchall()

    def batches(piece: int, names: list[str]) -> Generator[Any, None, None]:
        with _one_line(where, "it fails"):
            reader = relation().select(*map(duckdb.ColumnExpression, names)).to_arrow_reader(BATCH)
            try:
                yield from reader
            finally:
                reader.close()

    return Batches(where, types, (size,), batches, ordered=False)


def table(source: Any) -> Batches:
    """An Arrow table in memory."""

    def batches(piece: int, names: list[str]) -> Generator[Any, None, None]:
        yield from source.select(names).to_batches(BATCH)

    return Batches("data", source.schema, (len(source),), batches)


@contextmanager
def _one_line(where: str, what: str = "it cannot be read") -> Iterator[None]:
    """Errors of other libraries, which have many types, as a refusal."""
    try:
        yield
    except (FileNotFoundError, MissingPackage):
        raise
    except Exception as error:
        raise Refusal(f"{where}: {what}: {one_line(error)[:400]}") from error


def _package(name: str) -> ModuleType:
    """A package of the extra ``tables``.

    Raises:
        MissingPackage: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise MissingPackage(f"such tables need the package {package}: pip install 'bayesdd[tables]'") from error
