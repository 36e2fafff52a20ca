"""What a column may be, and how its synthetic entries move.

A kind maps a column's own units to free coordinates in which distillation optimises. Kinds are inferred from the site
that observes a column (its support), from the dtype (unobserved integers are ``fixed``), else ``real``; a user
overrides them with ``Task(..., kinds={"x": bayesdd.kinds.positive})``.

Bernoulli, Binomial, Poisson and negative binomial observations are relaxed: 0.3 stands for 0.3 of a success. The first
three log-likelihoods are linear in the observation, up to a constant; a negative binomial's is its smooth continuation,
which other tools do not share (``distill(..., whole_outcomes=True)`` keeps counts whole). Categorical observations keep
their classes unless ``soft(K)`` asks for class probabilities: one row then counts as K weighted rows that differ in the
class only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints

from bayesdd.data.columns import Columns
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.program import Observation


@dataclass(frozen=True)
class Kind:
    """How a column's entries may move.

    Attributes:
        name: As printed.
        to_free: Column units to free coordinates, elementwise; None if the column is copied from real rows.
        from_free: The inverse.
        whiten: Whether free coordinates are whitened jointly with the other whitened columns.
        classes: Number K of classes of a soft column, else 0.
        bounded: Whether the column is divided by the observing site's own upper bound first (Binomial's trials).
        low: Bounds below, the column's units: one for all elements, whose map keeps it, or one for each.
        high: Bounds above.
        atoms: Pairs of an element and a value at which the log-likelihood jumps: such entries stay, others stay on
            their side of it.
        of_rows: Where the kind depends on the real rows: they -> the kind.
    """

    name: str
    to_free: Callable[[Tensor], Tensor] | None
    from_free: Callable[[Tensor], Tensor] | None
    whiten: bool = True
    classes: int = 0
    bounded: bool = False
    low: float | tuple[float, ...] = -torch.inf
    high: float | tuple[float, ...] = torch.inf
    atoms: tuple[tuple[int, float], ...] = ()
    of_rows: Callable[[Tensor], Kind] | None = None

    def __repr__(self) -> str:
        at = sorted({value for _, value in self.atoms})
        return f"bayesdd.kinds.{self.name}" + (f" held at {', '.join(f'{value:g}' for value in at)}" if at else "")


def _same(value: Tensor) -> Tensor:
    return value


def _logit(value: Tensor, margin: float) -> Tensor:
    return torch.logit(value.clamp(margin, 1.0 - margin))


def interval(low: float, high: float) -> Kind:
    """A column between two bounds."""
    width = high - low
    return Kind(
        f"interval({low}, {high})",
        lambda value: _logit((value - low) / width, 1e-3),
        lambda free: low + width * torch.sigmoid(free),
        low=low,
        high=high,
    )


def soft(classes: int) -> Kind:
    """A categorical observation held as class probabilities: stored ``(rows, K)``, exported as K weighted rows each."""
    if classes < 2:
        raise Refusal(f"kinds.soft needs at least two classes, got {classes}.")
    smooth = 0.1 / classes

    def to_free(value: Tensor) -> Tensor:
        onehot = torch.nn.functional.one_hot(value.long(), classes).double() if value.dim() == 1 else value
        return (onehot * (1 - classes * smooth) + smooth).log()

    return Kind(f"soft({classes})", to_free, lambda free: torch.softmax(free, -1), whiten=False, classes=classes)


def _within(column: Tensor) -> Kind:
    flat = column.reshape(len(column), -1)
    low = torch.where(flat.isnan(), torch.inf, flat).amin(0)
    high = torch.where(flat.isnan(), -torch.inf, flat).amax(0)
    return Kind("observed", _same, _same, low=tuple(low.tolist()), high=tuple(high.tolist()))


real = Kind("real", _same, _same)
positive = Kind("positive", lambda value: value.clamp_min(1e-10).log(), torch.exp, low=0.0)
observed = Kind("observed", _same, _same, of_rows=_within)  # between the smallest and the largest value of each element
# Margins: an exact 0 or 1 has no logit; from 0.05 on gradients are large enough to move it.
binary = Kind("binary", lambda value: _logit(value, 0.05), torch.sigmoid, whiten=False, low=0.0, high=1.0)
count = Kind("count", lambda value: value.clamp_min(0.1).log(), torch.exp, whiten=False, low=0.0)
trials = Kind("trials", binary.to_free, binary.from_free, whiten=False, bounded=True, low=0.0)
fixed = Kind("fixed", None, None, whiten=False)
whole = Kind("whole", None, None, whiten=False)  # as fixed, but starting rows are spread over its values


def infer(columns: Columns, observed: tuple[Observation, ...], given: Mapping[str, Kind]) -> dict[str, Kind]:
    """The kind of every column: given, else by the observing site's support, else by dtype.

    Raises:
        Refusal: A given kind names no column, or is no Kind, or does not fit the column.
    """
    for name, kind in given.items():
        if name not in columns:
            raise Refusal(f"kinds names column {name!r}, but the data have {sorted(columns)}.")
        if not isinstance(kind, Kind):
            raise Refusal(f"kinds[{name!r}] must be one of bayesdd.kinds, got {kind!r}.")
        column = columns[name]
        if kind.classes and (column.is_floating_point() or column.dim() != 1):
            raise Refusal(
                f"kinds.soft is for a column (rows,) of integer classes, but column {name!r} is {tuple(column.shape)} "
                f"of {column.dtype}."
            )
        if kind.classes and int(column.max()) >= kind.classes:
            raise Refusal(
                f"kinds[{name!r}] is soft({kind.classes}), but the column has labels up to {int(column.max())}: give "
                "as many classes as the observing site has."
            )
        if not kind.classes and kind.to_free is not None and not column.is_floating_point():
            raise Refusal(
                f"kinds[{name!r}] is {kind.name}, but the column holds integers, which cannot move: give it as floats."
            )
    sites: dict[str, list[Observation]] = {}
    for observation in observed:
        sites.setdefault(observation.column or "", []).append(observation)
    return {
        name: _fitted(given[name], column) if name in given else _inferred(column, sites.get(name, []))
        for name, column in columns.items()
    }


def _fitted(kind: Kind, column: Tensor) -> Kind:
    return kind if kind.of_rows is None else kind.of_rows(column)


RELAXED = {"Bernoulli": binary, "Poisson": count, "NegativeBinomial": count, "Binomial": trials}


def _inferred(column: Tensor, sites: list[Observation]) -> Kind:
    wanted = [RELAXED.get(site.distribution) or _by_support(site.support) for site in sites]
    seen = {element for site in sites for element in site.elements}
    if not sites or (seen and len(seen) < column[0].numel()):
        wanted.append(real if column.is_floating_point() else fixed)
    # Where elements of one column are of several kinds, no kind serves them all.
    return wanted[0] if all(kind == wanted[0] for kind in wanted) else fixed


_HALF_LINES = type(constraints.positive), type(constraints.nonnegative)


def _by_support(support: Any) -> Kind:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if getattr(support, "is_discrete", False) or support is None:
        return fixed
    if support is constraints.real or support is constraints.real_vector:
        return real
    if isinstance(support, _HALF_LINES) and _number(support.lower_bound) == 0:
        return positive
    if isinstance(support, type(constraints.unit_interval)):
        low, high = _number(support.lower_bound), _number(support.upper_bound)
        if low is not None and high is not None:
            return interval(low, high)
    # Any other continuous support (a simplex, a Cholesky factor): the transform that Pyro itself would use.
    transform = biject_to(support)
    if transform.domain is constraints.real and not support.event_dim:
        return Kind("supported", transform.inv, transform, whiten=False)
    return fixed


def _number(bound: Any) -> float | None:
    """A bound that is the same for every row and draw, else None."""
    if isinstance(bound, Tensor):
        return float(bound) if bound.dim() == 0 else None
    return float(bound)
