"""Where the entries of a column may be, read off the log-likelihood itself: bounds that no site states, and atoms.

A column that no site observes (an exposure, a dose) is positive if the density is not finite just below zero. A value
at which the log-likelihood of a row jumps is an atom: a model that branches on ``y == 0`` or ``y > 0`` (a hurdle, zero
inflation, a Tobit) says something else of the next number, and rows that left the atom would lose its branch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Set
from dataclasses import replace

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.task import kinds
from bayesdd.task.engine import Engine
from bayesdd.task.kinds import Kind
from bayesdd.task.program import Program, evaluate

Evaluate = Callable[[Columns], Tensor]  # rows -> log-likelihood (S, rows)

LOOKED_AT = 64  # rows in which a bound is sought
BELOW = 1e-3  # below zero, or above one, in the largest entry's units
MOST_ROWS = 4096  # evaluated together: wide columns are looked at in fewer values
MOST_VALUES = 64  # of an element at which a jump is sought, the most frequent and the extremes
STEPS = 1e-4, 1e-5  # in the element's sds: a slope's change falls with the step, a jump stays
JUMP = 1e-6  # nats, of 1 + |log-likelihood|: above rounding
MOST_ATOMS = 8  # of an element, and at most half of its values: with more, the sides have no room


def supported(
    program: Program,
    backend: str,
    columns: Columns,
    found: Mapping[str, Kind],
    felt: Set[str],
    unstated: Set[str],
    draws: Tensor,
) -> dict[str, Kind]:
    """The kinds with bounds and atoms that the log-likelihood shows.

    Args:
        program: The model.
        backend: The task's.
        columns: Real rows.
        found: Kind of each column, as inferred or given.
        felt: Columns in which the log-likelihood has a gradient.
        unstated: Those whose bounds no site and no user states.
        draws: Latents at which the log-likelihood is finite, ``(S, P)``.

    Warns:
        UserWarning: The log-likelihood jumps at so many values of a column that it is held fixed; names the column.
    """
    engine = Engine(lambda flat, rows: evaluate(program, flat, rows)[1], "loop" if backend == "loop" else "vmap")

    def at(rows: Columns) -> Tensor:
        with torch.no_grad():
            return engine(draws, rows)

    result = dict(found)
    for name, column in columns.items():
        if name not in felt or found[name].to_free is None or found[name].classes or not column.is_floating_point():
            continue
        if name in unstated and found[name] == kinds.real:
            result[name] = _bounded(at, columns, name)
        result[name] = _with_atoms(at, columns, name, result[name], program.name)
    return result


def _bounded(at: Evaluate, columns: Columns, name: str) -> Kind:
    """Real, positive or between 0 and 1, as a whole or by element."""
    flat = columns[name].reshape(len(columns[name]), -1)
    here = ~flat.isnan()
    least = torch.where(here, flat, torch.inf).amin(0)
    most = torch.where(here, flat, -torch.inf).amax(0)
    varying = most > least
    whole = torch.where(here, flat == flat.round(), True).all(0)
    # Densities of counts are smooth down to -1, where their gamma function ends.
    below = _not_finite(at, columns, name, varying & (least >= 0), torch.where(whole, -1.0, -BELOW * most))
    if not bool(below.any()):
        return kinds.real
    above = _not_finite(at, columns, name, below & (most <= 1), 1 + BELOW * most)
    if bool((above == varying).all()):
        return kinds.interval(0.0, 1.0)
    if bool((below == varying).all()) and not bool(above.any()):
        return kinds.positive
    low, high = torch.where(below, 0.0, -torch.inf), torch.where(above, 1.0, torch.inf)
    return replace(kinds.real, low=tuple(low.tolist()), high=tuple(high.tolist()))


def _not_finite(at: Evaluate, columns: Columns, name: str, elements: Tensor, value: Tensor) -> Tensor:
    """Elements ``(K,)`` at one of whose values ``(K,)`` the log-likelihood of some row is not finite."""
    found = torch.zeros_like(elements)
    chosen = elements.nonzero()[:, 0]
    if not len(chosen):
        return found
    count = len(columns[name])
    rows = torch.arange(0, count, -(-count // LOOKED_AT))
    together = _replaced(columns, name, rows, elements, value)
    if _finite(at, together):
        return found
    few = rows[:: -(-len(rows) * len(chosen) // MOST_ROWS)]
    for element in chosen:
        alone = torch.zeros_like(elements)
        alone[element] = True
        found[element] = not _finite(at, _replaced(columns, name, few, alone, value))
    return found


def _finite(at: Evaluate, rows: Columns) -> bool:
    return bool(torch.isfinite(at(rows)).all())


def _replaced(columns: Columns, name: str, picked: Tensor, elements: Tensor, value: Tensor) -> Columns:
    rows = {key: column[picked] for key, column in columns.items()}
    flat = rows[name].reshape(len(picked), -1)
    moved = torch.where(elements & ~flat.isnan(), value.expand(flat.shape), flat)
    return {**rows, name: moved.reshape(rows[name].shape)}


def _with_atoms(at: Evaluate, columns: Columns, name: str, kind: Kind, model: str) -> Kind:
    """The kind with the atoms that are found; fixed, with a warning, where they are too many."""
    column = columns[name]
    picked, element, value, scale = _candidates(column.reshape(len(column), -1))
    if not len(picked):
        return kind
    jumps = torch.zeros_like(picked, dtype=torch.bool)
    rows = {key: other[picked] for key, other in columns.items()}
    base = at(rows)
    low, high = (_bound(bound, element) for bound in (kind.low, kind.high))
    for sign in (1.0, -1.0):
        changes, inside = [], torch.ones_like(jumps)
        for step in STEPS:
            moved = value + sign * step * scale
            inside &= (moved > low) & (moved < high)
            flat = rows[name].reshape(len(picked), -1).scatter(1, element[:, None], moved[:, None])
            changes.append((at({**rows, name: flat.reshape(rows[name].shape)}) - base).abs())
        large, small = changes
        jumped = (small > large / 2) & (small > JUMP * (1 + base.abs()))
        jumps |= inside & ((jumped | ~torch.isfinite(small)) & torch.isfinite(base)).any(0)
    atoms = sorted({(int(e), float(v)) for e, v in zip(element[jumps], value[jumps], strict=True)})
    for each in {e for e, _ in atoms}:
        ours = [v for e, v in atoms if e == each]
        if len(ours) > MOST_ATOMS or 2 * len(ours) > len(value[element == each].unique()):
            warnings.warn(
                f"{model}: the log-likelihood jumps at {len(ours)} values of column {name!r}, such as {ours[0]:g}: the "
                f"column is held fixed; if it is a group or class, give it as integers.",
                UserWarning,
                stacklevel=6,
            )
            return kinds.fixed
    return replace(kind, atoms=tuple(atoms)) if atoms else kind


def _bound(bound: float | tuple[float, ...], element: Tensor) -> Tensor:
    found = torch.as_tensor(bound, dtype=torch.float64)
    return found[element] if found.dim() else found


def _candidates(flat: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, elements, their values and sds ``(B,)``: two rows with each value that an element has, the most frequent.

    Values of a continuous element are as good as different; its extremes are looked at all the same.
    """
    most = max(2, min(MOST_VALUES, MOST_ROWS // (2 * flat.shape[1])))
    found = []
    for element, entries in enumerate(flat.T):
        here = (~entries.isnan()).nonzero()[:, 0]
        values, inverse, counts = torch.unique(entries[here], return_inverse=True, return_counts=True)
        if len(values) < 2:
            continue
        order = torch.argsort(counts, descending=True, stable=True)[:most]
        chosen = torch.cat([order, torch.tensor([0, len(values) - 1])]).unique()
        first = torch.full((len(values),), len(here)).scatter_reduce(0, inverse, torch.arange(len(here)), "amin")
        last = torch.zeros(len(values), dtype=torch.int64).scatter_reduce(0, inverse, torch.arange(len(here)), "amax")
        rows = here[torch.cat([first[chosen], last[chosen]])]
        scale = entries[here].std().expand(len(rows))
        found.append((rows, torch.full_like(rows, element), values[chosen].repeat(2), scale))
    if not found:
        empty = torch.zeros(0, dtype=torch.int64)
        return empty, empty, flat.new_zeros(0), flat.new_zeros(0)
    rows, elements, values, scales = (torch.cat(parts) for parts in zip(*found, strict=True))
    return rows, elements, values, scales
