"""Rows in the partitions of a dask DataFrame: the worker that holds one turns it into numbers and sums it there.

Dask's scheduler places the work and makes it good when a worker dies: a partition is then read again, and its stamp
says whether it is still the same.
"""

from __future__ import annotations

import importlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

import pandas as pd
import torch
from torch import Tensor

from bayesdd.data.arrow import package as arrow
from bayesdd.data.arrow import refuse_many
from bayesdd.data.columns import Columns
from bayesdd.data.files import one_line
from bayesdd.data.media import Sums, assembled, variables_of
from bayesdd.data.names import Members, members_of
from bayesdd.data.stamp import stamp
from bayesdd.data.values import Labels, coded, refuse_disguised
from bayesdd.numerics.refusal import MissingPackage, Refusal, WrongType

Stamps: TypeAlias = tuple[int, ...]
_UNFIT = "datetime64", "timedelta64", "period", "complex"


class Piece(NamedTuple):
    """A partition as numbers, on a worker: its columns, its number of rows and their stamp."""

    columns: Columns
    stamps: Stamps


@dataclass(frozen=True, eq=False)
class Partitions:
    """A dask DataFrame; made by ``partitions``.

    Attributes:
        frame: The data frame.
        client: The cluster.
        pieces: Rows of each partition.
        made: Columns and labels -> the partitions as numbers, on the workers, and their stamps.
    """

    frame: Any
    client: Any
    pieces: tuple[int, ...]
    made: dict[str, tuple[list[Any], list[Stamps]]] = field(default_factory=dict)
    where: str = "dask DataFrame"
    ordered: bool = True

    @property
    def size(self) -> int:
        """Number N of rows."""
        return sum(self.pieces)

    @property
    def starts(self) -> list[int]:
        """Number of the first row of each partition."""
        return [0, *accumulate(self.pieces)][:-1]

    @property
    def schema(self) -> Mapping[str, str]:
        """Column -> ``numbers``, ``labels``, or pandas' name of what it holds."""
        return {name: _sort(kind) for name, kind in self.frame.dtypes.items()}

    def members(self) -> Members:
        """Columns ``x[0]``, ``x[1]``, ... are one array column."""
        return members_of(list(self.frame.columns), self.where)

    def check(self, variables: Sequence[str]) -> None:
        """Refuses columns that are no numbers and no text."""
        for name in variables:
            if self.schema[name] not in ("numbers", "labels"):
                raise WrongType(
                    f"{self.where}: column {name!r} holds {self.schema[name]}; give numbers or text, such as days "
                    "since the first, or leave it out by columns="
                )

    def labels(self, variable: str) -> Labels:
        """Those of a categorical whose categories are known, in their order; else those that occur, sorted."""
        column = self.frame[variable]
        if isinstance(column.dtype, pd.CategoricalDtype) and column.cat.known:
            return tuple(map(str, column.cat.categories))
        with told():
            found = self.client.compute(column.unique()).result()
        refuse_many(len(found), f"{self.where}: column {variable!r}")
        labels = tuple(sorted({str(label).strip() for label in found if not pd.isna(label)} - {""}))
        refuse_disguised(labels, f"{self.where}: column {variable!r}")
        return labels

    def take(self, members: Members, labels: Mapping[str, Labels], rows: Tensor) -> Columns:
        """Columns of rows of ascending numbers, brought here."""
        ends = list(accumulate(self.pieces))
        places = range(bisect_right(ends, int(rows[0])), bisect_right(ends, int(rows[-1])) + 1)
        cuts = torch.searchsorted(rows, torch.tensor(ends)).tolist()
        jobs = []
        for place in (place for place in places if self.pieces[place]):
            some = rows[cuts[place - 1] if place else 0 : cuts[place]] - self.starts[place]
            jobs.append((place, _taken, (some.numpy(),)))
        found = self._run(members, labels, jobs)
        return {name: torch.cat([piece[name] for piece in found]) for name in found[0]}

    def total(
        self, members: Members, labels: Mapping[str, Labels], function: Callable[..., Sums], *arguments: Any
    ) -> Sums:
        """Sum over the partitions of ``function(columns, number of the first row, *arguments)``, taken where they are.

        Added in the order of the partitions, so that it does not depend on which worker was first.
        """
        # Sent once to a worker, not once a partition; kept by the scheduler, so that it is there for a new worker too.
        with told():
            shared = self.client.submit(_itself, arguments, pure=False)
        jobs = [(k, _summed, (function, self.starts[k], shared)) for k, size in enumerate(self.pieces) if size]
        found = self._run(members, labels, jobs)
        return tuple(torch.stack(parts).sum(0) for parts in zip(*found, strict=True))

    def counted(self, variables: Sequence[str], weight: str | None, names: tuple[str, str], most: int) -> Any:
        """As of ``grouped.Counting``, by ``groupby``."""
        total, least = names
        weights = 1.0 if weight is None else self.frame[weight].astype("float64").fillna(0.0)
        frame = self.frame[list(variables)].assign(**{total: weights, least: weights})
        every = frame.groupby(list(variables), dropna=False, observed=True, sort=False)
        with told():
            few = every.agg({total: "sum", least: "min"}).reset_index().head(most, npartitions=-1, compute=False)
            found = self.client.compute(few).result()
        return arrow("pyarrow").Table.from_pandas(found, preserve_index=False)

    def _run(self, members: Members, labels: Mapping[str, Labels], jobs: Sequence[Any]) -> list[Any]:
        held, stamps = self._made(members, labels)
        with told():
            futures = [
                self.client.submit(_checked, held[k], stamps[k], k, function, *arguments, pure=False)
                for k, function, arguments in jobs
            ]
            found: list[Any] = self.client.gather(futures)
        return found

    def _made(self, members: Members, labels: Mapping[str, Labels]) -> tuple[list[Any], list[Stamps]]:
        key = repr((members, dict(labels)))
        if key not in self.made:
            delayed, names = _package("dask").delayed, variables_of(members)
            with told():
                parts = zip(self.frame[names].to_delayed(), self.starts, strict=True)
                made = self.client.compute([delayed(_numbers)(one, members, dict(labels), at) for one, at in parts])
                self.made[key] = made, self.client.gather(self.client.map(_stamps, made, pure=False))
        return self.made[key]


def partitions(frame: Any) -> Partitions:
    """The partitions of a dask DataFrame, on the cluster of the client that is current.

    Raises:
        Refusal: There is no client, or no rows.
        OSError: The cluster does not answer.
    """
    distributed = _package("distributed")
    try:
        client = distributed.default_client()
    except ValueError as error:
        raise Refusal(
            "a dask DataFrame is summed by a cluster's workers, and there is no client: client = "
            "dask.distributed.Client(), or Client(address), comes first"
        ) from error
    with told():
        pieces = client.gather(client.compute([_package("dask").delayed(len)(part) for part in frame.to_delayed()]))
    return Partitions(frame, client, tuple(pieces))


def is_dask(source: Any) -> bool:
    """Whether something is a data frame of dask."""
    return type(source).__module__.startswith("dask") and hasattr(source, "to_delayed")


def _sort(kind: Any) -> str:
    name = str(kind)
    if name.startswith(_UNFIT):
        return name
    if isinstance(kind, pd.CategoricalDtype) or pd.api.types.is_string_dtype(kind) or name == "object":
        return "labels"
    return "numbers" if pd.api.types.is_numeric_dtype(kind) else name


# On the workers.


def _numbers(frame: pd.DataFrame, members: Members, labels: dict[str, Labels], first: int) -> Piece:
    where, values = "dask DataFrame", {}
    for name in variables_of(members):
        if name not in frame:
            raise Refusal(f"{where}: column {name!r} is not in one of its partitions; they need equal columns")
        values[name] = coded(frame[name], f"{where}: column {name!r}", labels.get(name, ())).values
    columns = assembled(values, members, first, where) if len(frame) else {}
    return Piece(columns, (len(frame), *(stamp(columns).tolist() if columns else ())))


def _stamps(piece: Piece) -> Stamps:
    return piece.stamps


def _checked(piece: Piece, stamps: Stamps, place: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """A partition that was read again, since its worker died, must be what it was."""
    if piece.stamps != stamps:
        raise OSError(
            f"dask DataFrame: partition {place} was changed while its rows were needed: results would mix two "
            "versions; start again"
        )
    return function(piece.columns, *arguments)


def _taken(columns: Columns, rows: Any) -> Columns:
    return {name: column[torch.from_numpy(rows)] for name, column in columns.items()}


def _summed(columns: Columns, function: Callable[..., Sums], first: int, arguments: tuple[Any, ...]) -> Sums:
    return function(columns, first, *arguments)


def _itself(value: Any) -> Any:
    return value


@contextmanager
def told() -> Iterator[None]:
    """What a cluster raises, in one line.

    Raises:
        OSError: It does not answer, or a partition cannot be read.
        Refusal: What was computed there cannot be; as it was raised there.
    """
    try:
        yield
    except (Refusal, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise Refusal(
            f"the workers cannot import {error.name!r}: install it there, or send it by "
            f"client.upload_file('{error.name}.py')"
        ) from error
    except KeyError as error:
        raise Refusal(
            f"dask DataFrame: a partition lacks a column: {one_line(error)}; partitions need equal columns: leave it "
            "out, or mend the file"
        ) from error
    except Exception as error:  # of dask, its connections, and whatever reads a partition
        raise OSError(f"dask: the workers could not do it: {one_line(error)[:400]}") from error


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackage(f"dask DataFrames need the package {name}: pip install 'bayesdd[tables]'") from error
