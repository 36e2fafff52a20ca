"""Tables of other libraries, by Arrow: Parquet and Arrow files, DuckDB queries, polars, pyarrow.

All give record batches (``bayesdd.data.arrow``). Row groups are read one after the other, and only the columns that are
taken.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from bayesdd.data.arrow import Batches, package, sort_of, telling
from bayesdd.data.names import QUERY
from bayesdd.numerics.refusal import Refusal, WrongType

FORMATS = {".parquet": "parquet", ".pq": "parquet", ".arrow": "ipc", ".feather": "ipc"}
BATCH = 2**17  # rows: smaller batches cost more calls, larger ones more memory


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
        found = table(package("pyarrow").table(source))
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
    arrow = package("pyarrow.dataset")
    hive = arrow.HivePartitioning.discover(infer_dictionary=True)
    with telling(path):
        made = arrow.dataset([str(one) for one in paths], format=formats.pop(), partitioning=hive)
    return dataset(made, path, filter)


def dataset(source: Any, where: str, filter: Any = None) -> Batches:
    """A pyarrow dataset, a row group a piece.

    Raises:
        Refusal: A file is damaged, or holds no such columns as the filter names.
    """
    pa = package("pyarrow")
    schemas, fragments, counts = {}, [], []
    with telling(where):
        found = list(source.get_fragments(filter=filter))
    for one in found:
        with telling(getattr(one, "path", where)):
            schemas[getattr(one, "path", where)] = one.physical_schema
    with telling(where):  # names are decoded here
        differing = _differing(source.schema, schemas)
        kept = [[one for one in own if one.name not in differing] for own in (source.schema, *schemas.values())]
        equal = [pa.schema(fields) for fields in kept]
        whole = pa.unify_schemas(equal, promote_options="permissive")
    whole = pa.schema(
        [source.schema.field(one.name) if one.name in differing else whole.field(one.name) for one in source.schema]
    )
    for one in found:
        with telling(getattr(one, "path", where)):
            for part in one.split_by_row_group() if hasattr(one, "split_by_row_group") else [one]:
                known = filter is None and getattr(part, "row_groups", None)
                count = known[0].num_rows if known else part.scanner(schema=whole, filter=filter).count_rows()
                if count:
                    fragments.append(part)
                    counts.append(count)

    def batches(piece: int, names: list[str]) -> Generator[Any, None, None]:
        part = fragments[piece]
        if filter is None and _plain(part, names, whole):
            yield from _row_groups(part, names)
        else:
            settings = {"columns": names, "filter": filter, "batch_size": BATCH, "batch_readahead": 1}
            yield from part.scanner(schema=whole, use_threads=False, **settings).to_batches()

    def relation() -> Any:
        some = source.replace_schema(whole)
        return package("duckdb").connect().from_arrow(some if filter is None else some.filter(filter))

    local = package("pyarrow.fs").LocalFileSystem  # elsewhere, or in memory, no file can be watched
    paths = tuple(Path(one.path) for one in found if isinstance(getattr(one, "filesystem", None), local))
    return Batches(where, whole, tuple(counts), batches, paths, differing=differing, relation=relation)


def _plain(part: Any, names: list[str], whole: Any) -> bool:
    """Whether a Parquet file on a local disk has these columns as the whole table has them."""
    if not hasattr(part, "row_groups") or not isinstance(part.filesystem, package("pyarrow.fs").LocalFileSystem):
        return False
    own = part.physical_schema
    return all(name in own.names and own.field(name).type == whole.field(name).type for name in names)


def _row_groups(part: Any, names: list[str]) -> Generator[Any, None, None]:
    """Read without the dataset's scanner, which took twice the processor seconds."""
    groups = [group.id for group in part.row_groups]
    with part.open() as file:
        found = package("pyarrow.parquet").ParquetFile(file, metadata=part.metadata)
        yield from found.iter_batches(BATCH, row_groups=groups, columns=names, use_threads=False)


def _differing(schema: Any, schemas: Mapping[str, Any]) -> dict[str, str]:
    """Columns that some file lacks, or holds as something else -> in words which and how."""
    differing: dict[str, str] = {}
    for one in schema:
        for name, own in schemas.items() if any(one.name in each.names for each in schemas.values()) else ():
            sort = sort_of(own.field(one.name).type) if one.name in own.names else None
            if sort != sort_of(one.type):
                what = f"holds {sort} in {name}, {sort_of(one.type)} elsewhere" if sort else f"is not in {name}"
                differing[one.name] = f"{what}; files of one table need equal columns: leave it out, or mend the file"
                break
    return differing


def query(source: Any) -> Batches:
    """Rows of a DuckDB query: SQL over files, in a connection of its own, or a relation of the user's.

    Raises:
        Refusal: The query fails, or gives no table.
    """
    duckdb = package("duckdb")
    text = " ".join(str(source if isinstance(source, str) else "of a relation").split())
    where = f"query {text if len(text) <= 60 else text[:57] + '...'!r}" if isinstance(source, str) else "query"
    # Without replacements: names in the query are tables and files, never variables of Python.
    base = duckdb.connect(config={"python_enable_replacements": False}) if isinstance(source, str) else None

    def relation() -> Any:
        """A connection can hold one open result: passes over a query of text get one each."""
        return source if base is None else base.cursor().sql(source)

    with telling(where, "it fails"):
        if relation() is None:
            raise Refusal("it gives no table; SELECT what the rows are")
        types = relation().limit(0).to_arrow_table().schema
        ((size,),) = relation().aggregate("count(*)").fetchall()

    def batches(piece: int, names: list[str]) -> Generator[Any, None, None]:
        with telling(where, "it fails"):
            reader = relation().select(*map(duckdb.ColumnExpression, names)).to_arrow_reader(BATCH)
            try:
                yield from reader
            finally:
                reader.close()

    return Batches(where, types, (size,), batches, ordered=False, relation=relation)


def table(source: Any) -> Batches:
    """An Arrow table in memory."""

    def batches(piece: int, names: list[str]) -> Generator[Any, None, None]:
        yield from source.select(names).to_batches(BATCH)

    def relation() -> Any:
        return package("duckdb").connect().from_arrow(source)

    return Batches("data", source.schema, (len(source),), batches, relation=relation)
