"""Equal rows counted where they are: the database groups them, and one of each comes here with its count.

The log-likelihood is a sum over rows, so that a row that occurs c times enters as c times its own: the posterior of the
grouped rows is that of all of them, exactly, whatever the model. It pays where columns take few values.
Source: Wong, Forsell, Lewis, Mao, Wardrop, "You only compress once: optimal data compression for estimating linear
models", 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from bayesdd.data.arrow import package
from bayesdd.data.columns import Choice, Source, check_names
from bayesdd.data.disk import Stored, placed, stored
from bayesdd.data.media import Medium
from bayesdd.data.names import Selection, element, free_name
from bayesdd.data.partitions import is_dask, partitions
from bayesdd.data.spark import is_spark, spark
from bayesdd.data.tables import medium_of, table
from bayesdd.data.values import Label
from bayesdd.numerics.refusal import Refusal, WrongType

MOST = 2**20  # distinct rows: as many stay in memory, and a model whose rows are nearly all different gains nothing


@runtime_checkable
class Counting(Protocol):
    """What a medium has besides, that can count equal rows."""

    def counted(self, variables: Sequence[str], weight: str | None, names: tuple[str, str], most: int) -> Any:
        """Each distinct row of the variables once, at most so many, as an Arrow table.

        Beside the variables it has two columns, named by ``names``: how often the row occurs, or the sum of its
        weights; and the least of its weights, 0 where one is missing.
        """


@dataclass(frozen=True, eq=False)
class Grouped:
    """Rows of which equal ones are to be counted; made by ``grouped``.

    Attributes:
        medium: Where the rows are.
    """

    medium: Medium

    def opened(
        self,
        select: Selection | None,
        choose: Choice | None,
        labels: Mapping[str, Sequence[Label]] | None,
        weight: str | None,
        *,
        again: bool,
    ) -> Stored:
        """The distinct rows of the columns that are chosen, with their counts; arguments as of ``columns.table``.

        Raises:
            Refusal: There are more than ``MOST`` of them, or as ``disk.on_disk``.
        """
        medium = self.medium
        assert isinstance(medium, Counting)  # ``grouped`` makes no other
        members, _, weights = placed(medium, select, choose, weight, again=again)
        raws = [raw for group in members.values() for raw in group.values()]
        check_names(dict.fromkeys(medium.schema), raws, medium.where)
        weighing = [raw for group in weights.values() for raw in group.values()]
        medium.check([*raws, *weighing])
        known = {
            spelled: tuple((labels or {}).get(spelled) or medium.labels(raw))
            for name, group in members.items()
            for index, raw in group.items()
            if medium.schema[raw] != "numbers" and (spelled := element(name, index))
        }
        names = free_name("count", medium.schema), free_name("least weight", medium.schema)
        found = medium.counted(raws, next(iter(weighing), None), names, MOST + 1)
        if len(found) > MOST:
            raise Refusal(
                f"{medium.where}: columns {raws} have more than {MOST:,} distinct rows, so that counting equal ones "
                "saves little: round columns, or leave grouped() out"
            )
        if len(found) and not (least := package("pyarrow.compute").min(found[names[1]]).as_py()) > 0:
            raise Refusal(
                f"{medium.where}: a weight in column {weight!r} is missing, or {least:g}; weights are positive: leave "
                "such rows out"
            )
        where = replace(table(found.drop_columns([names[1]])), where=medium.where)
        again_chosen = None if choose is None else lambda there: [name for name in members if name in there]
        return stored(where, select, again_chosen, dict(labels or {}) | known, names[0], again=again)


def grouped(source: Source) -> Grouped:
    """Counts equal rows where they are, for ``Task(model, bayesdd.grouped("rows/*.parquet"))``.

    The columns that the model takes are grouped (by DuckDB, by Spark or by dask), and one row of each sort is kept in
    memory, with its count as its weight; with ``weight=``, the sum of the weights. The posterior is that of all rows,
    exactly; the provenance of a distilled set says of how many.

    Args:
        source: Parquet or Arrow files, a query of DuckDB or a relation, a pyarrow dataset, a data frame of pandas,
            polars, pyarrow, dask or Spark.

    Raises:
        FileNotFoundError, MissingPackage, Refusal: As ``bayesdd.on_disk``.
        WrongType: Rows that no database reads.

    Example:
        >>> import pandas
        >>> rows = pandas.DataFrame({"x[0]": 1.0, "x[1]": [0.0, 1.0, 1.0, 1.0], "y": [0, 1, 1, 0]})
        >>> bayesdd.Task(model, bayesdd.grouped(rows)).size
        3
    """
    if is_spark(source):
        return Grouped(spark(source))
    if is_dask(source):
        return Grouped(partitions(source))
    if isinstance(source, pd.DataFrame):
        source = package("pyarrow").Table.from_pandas(source, preserve_index=False)
    medium = medium_of(source)
    if medium is None:
        what = source if isinstance(source, str) else type(source).__name__
        raise WrongType(
            f"grouped() takes files of Parquet or Arrow, a query, or a data frame, got {what}: "
            "pandas.DataFrame(rows), or write the rows to Parquet"
        )
    return Grouped(medium)
