"""Measures: how the numbers of a variable read in the user's own terms: unit, transform, scale, states, range."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from bayesdd.data.values import Array, Label
from bayesdd.numerics.refusal import Refusal


class Transform(NamedTuple):
    """A transform, its inverse, and the open interval of values that it takes."""

    of: Callable[[Array], Array]
    back: Callable[[Array], Array]
    low: float
    high: float


# By name, since files keep them.
TRANSFORMS = {
    "log": Transform(np.log, np.exp, 0.0, math.inf),
    "log1p": Transform(np.log1p, np.expm1, -1.0, math.inf),
    "sqrt": Transform(np.sqrt, np.square, -1e-300, math.inf),  # zero is taken
    "logit": Transform(lambda p: np.log(p / (1 - p)), lambda z: 1 / (1 + np.exp(-z)), 0.0, 1.0),
}


@dataclass(frozen=True)
class Measure:
    """One variable: value = back(centre + scale * number), or a label for each code.

    Attributes:
        transform: Name of the transform, of ``TRANSFORMS``; None is none.
        unit: Unit of the values, where it is known.
        centre: Subtracted from transformed values; None where sources have yet to agree on it.
        scale: What the rest is divided by.
        low: Least value seen, in the user's own terms.
        high: Greatest value seen.
        labels: Label of each code; of such a variable nothing else counts.
    """

    transform: str | None = None
    unit: str | None = None
    centre: float | None = 0.0
    scale: float = 1.0
    low: float | None = None
    high: float | None = None
    labels: tuple[Label, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        if self.transform is not None and self.transform not in TRANSFORMS:
            raise Refusal(f"a transform is one of {list(TRANSFORMS)}, got {self.transform!r}")

    def transformed(self, values: Array, what: str) -> Array:
        """Values as the transform takes them, NaN where missing.

        Raises:
            Refusal: A value lies where the transform is not defined.
        """
        if self.transform is None:
            return values
        found = TRANSFORMS[self.transform]
        outside = (values <= found.low) | (values >= found.high)
        if outside.any():
            wanted = (
                f"above {max(found.low, -1):g}" if found.high == math.inf else f"in ({found.low:g}, {found.high:g})"
            )
            raise Refusal(
                f"{what} holds {values[outside].flat[0]:g}, but {self.transform!r} needs values {wanted}: write NaN "
                "where nothing was measured, or take another transform= ('log1p' takes zeros)"
            )
        return found.of(values)

    def outside(self, numbers: Array) -> Array:
        """Numbers in the user's own terms: transformed back, or labels (None where missing)."""
        if self.labels:
            codes = np.where(np.isnan(numbers), len(self.labels), numbers).round().astype(np.int64)
            known = np.array([*self.labels, None], dtype=object)
            return known[np.clip(codes, 0, len(self.labels))]
        plain = (self.centre or 0.0) + self.scale * numbers
        return plain if self.transform is None else TRANSFORMS[self.transform].back(plain)

    def inside(self, values: Array) -> Array:
        """The inverse of :meth:`outside`, of values that are no labels."""
        plain = values if self.transform is None else TRANSFORMS[self.transform].of(values)
        return (plain - (self.centre or 0.0)) / self.scale

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; ``Measure(**found)`` is the inverse."""
        return {name: value for name, value in asdict(self).items() if value not in (None, ())}


def measures_of(kept: Mapping[str, Mapping[str, Any]]) -> dict[str, Measure]:
    """Measures from what :meth:`Measure.to_dict` has made."""
    return {name: Measure(**some) for name, some in kept.items()}
