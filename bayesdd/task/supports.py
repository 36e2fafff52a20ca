"""Where the entries of a column may be, read off the log-likelihood itself: bounds that no site states, and atoms.

A column that no site observes (an exposure, a dose) is positive if the density is not finite just below zero. A value
at which the log-likelihood of a row jumps is an atom: a model that branches on ``y == 0`` or ``y > 0`` (a hurdle, zero
inflation, a Tobit) says something else of the next number, and rows that left the atom would lose its branch. So is a
threshold between the values that occur (``x > 0.25``), where no entry stands: entries keep their side of it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Set
from dataclasses import replace

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.numerics.refusal import Refusal
from bayesdd.task import kinds, refusals
from bayesdd.task.engine import Engine
from bayesdd.task.kinds import Kind
from bayesdd.task.program import Program, evaluate

Evaluate = Callable[[Columns], Tensor]  # rows -> log-likelihood (S, rows)

LOOKED_AT = 64  # rows in which a bound is sought
BELOW = 1e-3  # below zero, or above one, in the largest entry's units
MOST_ROWS = 4096  # evaluated together: wide columns are looked at in fewer values
LOOKED_AT = 2**17  # rows among which values that occur often are sought
MOST_VALUES = 64  # of an element at which a jump is sought, the most frequent and the extremes
STEPS = 1e-4, 1e-5  # in the element's sds: a slope's change falls with the step, a jump stays
JUMP = 1e-6  # nats, of 1 + |log-likelihood|: above rounding
MOST_WALKED = 1024  # rows evaluated together while a jump between values is sought, some ten times or more
ROWS_WALKED = 4  # in which a jump between values is sought: it may need another column, such as a treatment
PLACES = 32  # of an element, from its least to its largest value, between which a jump is sought
FEWEST_PLACES = 8  # fewer, of a column of many elements, would find too little
LOPSIDED = 1.25  # a jump ends up in one half of an interval, while a smooth change divides itself between both
CLOSE = 1e-9  # width of an interval, in the element's sds, below which a change is a jump
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


def upper_bounds(program: Program, column_kinds: Mapping[str, Kind], rows: Columns) -> Columns:
    """Upper bound of every bounded column at given rows: column -> shape of the column.

    Raises:
        Refusal: A column is said to be bounded, and nothing that observes it says by what.
    """
    if not (names := [name for name, kind in column_kinds.items() if kind.bounded]):
        return {}
    found, _ = refusals.run(program, {name: column.cpu() for name, column in rows.items()})
    at_rows = {observation.name: observation.support for observation in found.observed}
    bounds = {o.column: getattr(at_rows[o.name], "upper_bound", None) for o in program.structure.observed}
    if unbounded := [name for name in names if bounds.get(name) is None]:
        raise Refusal(f"{program.name}: column {unbounded[0]!r} is of kind trials, but no Binomial observes it.")
    return {name: torch.as_tensor(bounds[name]).double().expand(rows[name].shape) for name in names}


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
    if (count := len(columns[name])) > LOOKED_AT:  # sorting a million values of each element takes seconds
        some = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:LOOKED_AT].sort().values
        columns = {key: other[some] for key, other in columns.items()}
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
    spread = dict(zip(element.tolist(), scale.tolist(), strict=True))
    for each, place in _thresholds(at, columns, name, spread):
        if all(e != each or abs(v - place) > STEPS[0] * spread[each] for e, v in atoms):
            atoms.append((each, place))
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


def _thresholds(at: Evaluate, columns: Columns, name: str, spread: Mapping[int, float]) -> list[tuple[int, float]]:
    """Elements and the places in them, between values that occur, at which the log-likelihood jumps.

    Intervals between values that occur are halved as long as nearly all of the change lies in one half: a jump stays
    as large as it is, a smooth change does not. Jumps that are small beside the change over an interval are not found.

    Args:
        at: The log-likelihood.
        columns: Real rows.
        name: The column.
        spread: Element that varies -> its sd.
    """
    places = min(PLACES, MOST_WALKED // (ROWS_WALKED * len(spread)))
    if places < FEWEST_PLACES:
        return []
    flat = columns[name].reshape(len(columns[name]), -1)
    left, right, rows, elements = [], [], [], []
    for each in spread:
        here = (~flat[:, each].isnan()).nonzero()[:, 0]
        values = flat[here, each].unique()
        grid = values[torch.linspace(0, len(values) - 1, min(places, len(values))).long()]
        few = here[torch.linspace(0, len(here) - 1, min(ROWS_WALKED, len(here))).long()]
        left.append(grid[:-1].repeat(len(few)))
        right.append(grid[1:].repeat(len(few)))
        rows.append(few.repeat_interleave(len(grid) - 1))
        elements.append(torch.full_like(rows[-1], each))
    a, b, row, element = (torch.cat(parts) for parts in (left, right, rows, elements))
    width = torch.tensor([spread[number] for number in element.tolist()], dtype=torch.float64)

    def seen(value: Tensor) -> Tensor:
        picked = {key: column[row] for key, column in columns.items()}
        moved = flat[row].scatter(1, element[:, None], value[:, None])
        return at({**picked, name: moved.reshape(picked[name].shape)})

    low, high = seen(a), seen(b)
    while len(a):
        middle = (a + b) / 2
        centre = seen(middle)
        first, second = (centre - low).abs(), (high - centre).abs()
        least = JUMP * (1 + centre.abs())
        jumping = (torch.maximum(first, second) > LOPSIDED * torch.minimum(first, second) + least).any(0)
        # The draw with the largest change decides where to go on.
        draw = torch.maximum(first, second).nan_to_num(0.0).argmax(0, keepdim=True)
        earlier = (first.gather(0, draw) > second.gather(0, draw))[0]
        a, b = torch.where(earlier, a, middle), torch.where(earlier, middle, b)
        low, high = torch.where(earlier, low, centre), torch.where(earlier, centre, high)
        if bool((b - a <= CLOSE * width)[jumping].all()):
            break
        a, b, row, element, width = (part[jumping] for part in (a, b, row, element, width))
        low, high = low[:, jumping], high[:, jumping]
    if not len(a):
        return []
    pairs = zip(element[jumping].tolist(), b[jumping].tolist(), strict=True)
    return sorted({(each, round(place, 7 - math.floor(math.log10(spread[each])))) for each, place in pairs})


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
        # Of values that occur once each, whole numbers are the ones that a model may single out.
        order = torch.argsort(counts + (values == values.round()) / 2, descending=True, stable=True)[:most]
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
