"""Where rows stay that are not held in memory: what a medium must say and give, and netCDF and Zarr as one.

Tables of Arrow, Parquet and DuckDB are in ``bayesdd.data.tables``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from bayesdd.data import columns as tables
from bayesdd.data.columns import WEIGHT, Columns
from bayesdd.data.formats import opened
from bayesdd.data.names import Members
from bayesdd.data.values import Labels, refuse_infinite, tensor
from bayesdd.numerics.refusal import Refusal, WrongType

# Rows first to last, not included, of each variable that the cursor was made for; first ones never go back.
Read: TypeAlias = Callable[[int, int], Mapping[str, Tensor]]
Sums: TypeAlias = tuple[Tensor, ...]


class Medium(Protocol):
    """Rows that stay where they are: files, a query, a table of another library. It is ``Local`` or ``Remote`` too."""

    @property
    def where(self) -> str:
        """What messages call it: its path, or the query."""

    @property
    def size(self) -> int:
        """Number N of rows."""

    @property
    def schema(self) -> Mapping[str, str]:
        """Variable -> ``numbers``, ``labels``, or in words what it holds that is neither."""

    @property
    def ordered(self) -> bool:
        """Whether every pass gives the rows in one order, also in another process."""

    def members(self) -> Members:
        """Column -> place in it -> variable."""

    def check(self, variables: Sequence[str]) -> None:
        """Refuses variables that cannot be columns side by side."""

    def labels(self, variable: str) -> Labels:
        """The labels of a variable, in the order of their codes."""


@runtime_checkable
class Local(Protocol):
    """What a medium has besides, whose rows this process reads."""

    def state(self) -> tuple[int, ...]:
        """Numbers that change where the rows may have changed, such as times of files; none where nothing is known.

        Raises:
            FileNotFoundError: A file is gone.
        """

    def cursor(self, members: Members, labels: Mapping[str, Labels]) -> AbstractContextManager[Read]:
        """Reads the variables of some columns as numbers or codes of their labels, front to back."""


@runtime_checkable
class Remote(Protocol):
    """What a medium has besides, whose rows are in other processes: those of a cluster."""

    def take(self, members: Members, labels: Mapping[str, Labels], rows: Tensor) -> Columns:
        """Columns of rows of ascending numbers, brought here."""

    def total(
        self, members: Members, labels: Mapping[str, Labels], function: Callable[..., Sums], *arguments: Any
    ) -> Sums:
        """Sum of ``function(columns, number of the first row, *arguments)``, taken where the rows are."""


def state_of(medium: Medium) -> tuple[int, ...]:
    """As ``Local.state``; nothing of rows in other processes, whose stamps say whether they have changed."""
    return medium.state() if isinstance(medium, Local) else ()


def cursor_of(medium: Medium, members: Members, labels: Mapping[str, Labels]) -> AbstractContextManager[Read]:
    """As ``Local.cursor``; rows of other processes are brought here by their numbers, a job a read."""
    return medium.cursor(members, labels) if isinstance(medium, Local) else _brought(medium, members, labels)


@contextmanager
def _brought(medium: Medium, members: Members, labels: Mapping[str, Labels]) -> Iterator[Read]:
    assert isinstance(medium, Remote)  # a medium is one or the other

    def read(start: int, stop: int) -> Mapping[str, Tensor]:
        found = medium.take(members, labels, torch.arange(start, stop))
        every = ((name, index, raw) for name, group in members.items() for index, raw in group.items())
        return {raw: found[name].movedim(0, -1)[index] for name, index, raw in every}

    yield read


@dataclass(frozen=True, eq=False)
class Grid:
    """A netCDF file or a Zarr store, whose variables are numbers with the rows first; made by ``grid``."""

    path: Path
    size: int
    schema: Mapping[str, str]
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ordered: bool = True

    @property
    def where(self) -> str:
        """Its path."""
        return str(self.path)

    def members(self) -> Members:
        """Each variable is a column."""
        return {name: {(): name} for name in self.schema}

    def check(self, variables: Sequence[str]) -> None:
        """Refuses names that no model can take, and variables that differ in their rows."""
        with opened(self.path) as dataset:
            found = tables.variables(dataset, self.where)
            tables.check_names(found, variables, self.where)
            tables.check_shapes({name: found[name].shape for name in variables}, self.where)

    def labels(self, variable: str) -> Labels:
        """Refuses: text in such files would have to be looked at whole."""
        raise WrongType(
            f"{self.where}: column {variable!r} holds {self.schema[variable]}; rows on disk are numbers: encode it"
        )

    def state(self) -> tuple[int, ...]:
        """Of the file, or of all files of the store."""
        return state([self.path])

    @contextmanager
    def cursor(self, members: Members, labels: Mapping[str, Labels]) -> Iterator[Read]:
        """One read of the file a variable and call."""
        variables = variables_of(members)
        with opened(self.path) as dataset:

            def read(start: int, stop: int) -> Mapping[str, Tensor]:
                found = {}
                for name in variables:
                    rows = dataset[name].isel({dataset[name].dims[0]: slice(start, stop)})
                    found[name] = tensor(rows.values, f"{self.where}: column {name!r}")
                return found

            yield read


def variables_of(members: Members) -> list[str]:
    """All variables that columns are made of."""
    return list(dict.fromkeys(raw for group in members.values() for raw in group.values()))


def grid(path: str | os.PathLike[str]) -> Grid:
    """A .nc or .zarr file.

    Raises:
        FileNotFoundError, MissingPackage, Refusal: No such file, no package zarr, a damaged file, no variables.
    """
    path = Path(path)
    with opened(path) as dataset:
        found = tables.variables(dataset, str(path))
        if not found:
            raise Refusal(f"{path}: no columns; give one variable a column, its rows first")
        schema = {name: "numbers" if one.dtype.kind in "biuf" else "text" for name, one in found.items()}
        numbers = [name for name, kind in schema.items() if kind == "numbers"] or list(schema)
        return Grid(path, len(found[numbers[0]]) if found[numbers[0]].ndim else 0, schema)


def assembled(
    values: Mapping[str, Tensor], members: Members, first: int, where: str, like: Columns | None = None
) -> Columns:
    """Columns from variables, in the dtypes of ``like``; ``first`` is the number of their first row.

    Raises:
        Refusal: An infinite value, a weight that is not positive, elements that do not fill an array, or as ``cast``.
    """
    found = {}
    for name, group in members.items():
        for raw in group.values():
            refuse_infinite(values[raw], f"{where}: column {raw!r}", first)
        column = tables.stacked({index: values[raw] for index, raw in group.items()}, name, where)
        found[name] = cast(column, like[name], f"{where}: column {name!r}", first) if like and name in like else column
    if WEIGHT in found:
        tables.check_weights(found[WEIGHT], where, first)
    return found


def cast(column: Tensor, like: Tensor, what: str, first: int) -> Tensor:
    """A column in the dtype of the sample's.

    Raises:
        Refusal: It has another shape, or numbers that would be lost.
    """
    made = column.to(like.dtype)
    if made.shape[1:] != like.shape[1:]:
        raise Refusal(
            f"{what} has {tuple(made.shape[1:])} numbers in row {first}, and {tuple(like.shape[1:])} elsewhere"
        )
    if column.is_floating_point() and not made.is_floating_point() and bool((odd := made != column).any()):
        row = int(odd.reshape(len(odd), -1).any(1).nonzero()[0])
        raise Refusal(
            f"{what} holds whole numbers in the rows looked at, but not in row {first + row} (from 0), where it is "
            "missing or a fraction: give it as floating numbers"
        )
    return made


def state(paths: Sequence[Path]) -> tuple[int, ...]:
    """Number, size, times of the last changes and place of files, and of those in folders: sums over them.

    The time of the last change of a file's place, unlike that of its content, cannot be set back.
    """
    files = [
        file
        for path in paths
        for file in (
            [Path(folder) / name for folder, _, found in os.walk(path) for name in found] if path.is_dir() else [path]
        )
    ]
    stats = [file.stat() for file in files]
    keys = ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
    return len(stats), *(sum(getattr(one, key) for one in stats) for key in keys)
