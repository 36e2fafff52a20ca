"""Names along the axes of sites and columns, ``dims=`` and ``coords=`` as PyMC has them; which label is a success."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bayesdd.data.columns import DataNote
from bayesdd.data.names import closest
from bayesdd.data.values import Label
from bayesdd.numerics.refusal import Refusal, WrongType
from bayesdd.task.program import Observation

PLAIN = {("no", "yes"), ("n", "y"), ("false", "true"), ("f", "t")}  # sorted, the second is meant as the success
RESERVED = {"chain", "draw", "row"}  # dimensions that ArviZ's groups have anyway

Shape = tuple[int, ...]


class Names(NamedTuple):
    """Site or column -> names of its dimensions (of a row's); dimension -> names along it, where there are any."""

    dims: dict[str, tuple[str, ...]]
    coords: dict[str, list[Any]]

    def along(self, name: str, shape: Shape) -> list[Sequence[Any]]:
        """Names, or numbers from 0, along each axis of a value."""
        dims = self.dims.get(name, [""] * len(shape))
        return [self.coords.get(dim, range(length)) for dim, length in zip(dims, shape, strict=True)]


def note_of_successes(name: str, observed: Iterable[Observation], labels: Mapping[str, Sequence[Label]]) -> None:
    """Says which of two labels that nobody has ordered a Bernoulli outcome counts as a success.

    Args:
        name: The model's, for the note.
        observed: Its observed sites.
        labels: Columns whose labels were sorted -> these.
    """
    for column in {o.column for o in observed if o.column and o.distribution == "Bernoulli"} & labels.keys():
        some = tuple(map(str, labels[column]))
        if len(some) == 2 and tuple(map(str.lower, some)) not in PLAIN:
            warnings.warn(
                f"{name}: of the outcome {column!r}, {some[1]!r} counts as 1 and {some[0]!r} as 0, by the alphabet; "
                f"labels={{{column!r}: [{some[1]!r}, {some[0]!r}]}} turns them",
                DataNote,
                stacklevel=5,
            )


def checked(
    dims: Any,
    coords: Any,
    shape_of: Callable[[str], Shape | None],
    sites: Collection[str],
    columns: Collection[str],
    labels: Mapping[str, Sequence[Label]],
    parts: Mapping[str, Sequence[str]],
) -> Names:
    """The user's names, checked against the values that they name.

    Args:
        dims: Site or column -> dimensions.
        coords: Dimension -> names.
        shape_of: Shape of a site, or of a column's row; None where there is no such value.
        sites: Names of the posterior's values.
        columns: Names of columns, and of the sites that observe them.
        labels: Column -> labels of its codes: a dimension of its name has them.
        parts: Array column -> names along its last axis.

    Raises:
        Refusal: Dimensions of something that is not there, or too few or many; names that do not fit.
        WrongType: No mapping of lists.
    """
    if not isinstance(dims, Mapping) or not isinstance(coords, Mapping):
        raise WrongType(
            'dims= and coords= are mappings: dims={"w": ["covariate"]}, coords={"covariate": ["age", "bmi"]}'
        )
    if odd := [names for names in (*dims.values(), *coords.values()) if not isinstance(names, Iterable)]:
        raise WrongType(f"dims= and coords= take lists of names, got {odd[0]!r}")
    found = {name: (some,) if isinstance(some, str) else tuple(some) for name, some in dims.items()}
    found |= {name: (f"{name}_dim_0",) for name in parts if name not in found}
    given = {dim: list(names) for dim, names in coords.items()}
    lengths: dict[str, int] = {}
    every = {*sites, *columns}
    for name, some in found.items():
        shape = shape_of(name)
        if shape is None:
            raise Refusal(
                f"dims= names {name!r}, which is no site or column of the model: "
                + (f"did you mean {near!r}?" if (near := closest(name, every)) else f"it has {sorted(every)}")
            )
        if len(shape) != len(some) or len(set(some)) < len(some):
            raise Refusal(
                f"dims= gives {name!r} the dimensions {list(some)}, but its shape is {shape}: one name an axis"
            )
        for dim, length in zip(some, shape, strict=True):
            if dim in RESERVED or dim in (columns if name in columns else sites):
                raise Refusal(f"dims= gives {name!r} the dimension {dim!r}, which is the name of something: rename it")
            if dim in labels and dim not in given:
                given[dim] = list(labels[dim])
            if dim == some[-1] and dim not in given and name in parts:
                given[dim] = list(parts[name])
            if dim in labels and given[dim] != list(labels[dim]):
                raise Refusal(f"coords= names {given[dim]} along {dim!r}, but column {dim!r} has {list(labels[dim])}")
            if dim in given and len(given[dim]) != length:
                raise Refusal(f"{name!r} has length {length} along {dim!r}, but coords= names {len(given[dim])} there")
            if lengths.setdefault(dim, length) != length:
                raise Refusal(f"{name!r} has length {length} along {dim!r}, other values have {lengths[dim]}")
    return Names(found, {dim: names for dim, names in given.items() if dim in lengths})
