"""From a problem and measurements to a surrogate: networks of their own scale, all rows, several searches."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bayesdd.numerics import arguments
from bayesdd.numerics.devices import available, resolve
from bayesdd.numerics.exclusive import exclusive
from bayesdd.numerics.refusal import Refusal, WrongType
from bayesdd.numerics.threads import threads_for
from bayesdd.pinn import modes as searches
from bayesdd.pinn.doubts import unlearned
from bayesdd.pinn.fixed import fixed_values, jumps
from bayesdd.pinn.measurements import measured
from bayesdd.pinn.polish import polished
from bayesdd.pinn.problem import Condition, Problem
from bayesdd.pinn.residuals import Networks, residuals
from bayesdd.pinn.surrogate import FitWarning, Surrogate
from bayesdd.pinn.terms import Columns, Term, all_terms, condition_terms

MET = 0.01  # of what draws of the prior leave of an equation: a search that leaves less has solved it
NATS = 10.0  # by which measurements may be less likely than by the best search
POINTS = 256  # of the equation, for each input and parameter
APART = 5.0  # geometric mean of scales, over the best search's, beyond which a search has failed


@exclusive
def fit(
    problem: Problem,
    data: Any = None,
    noise: float | Mapping[str, float] | None = None,
    seed: int = 0,
    *,
    hidden: tuple[int, ...] = (16, 16),
    points: int | None = None,
    modes: int = 4,
    steps: int = 300,
    device: str | torch.device = "cpu",
) -> Surrogate:
    """A network that satisfies an equation, its conditions and measurements, and knows how well.

    Several searches by Gauss-Newton steps start from draws of the prior (:mod:`bayesdd.pinn.modes`). Those that end
    well are widened and solve for what their residuals ask for, and once more, by random features, at points that
    they have not seen. They count alike: the mean is theirs, the spread that of their linearised Laplace
    approximations, of their differences, and of what the last correction has left (:mod:`bayesdd.pinn.remainder`).

    Args:
        problem: The problem.
        data: Measurements, as a task takes them (a mapping, a table or a file): a column ``(N,)`` for every input and
            parameter and for some outputs, NaN where a value is missing; None where nothing is measured.
        noise: Standard deviation of measurements, one number or by output; None: inferred.
        seed: Seed of points and of searches; equal seeds give equal results.
        hidden: Widths of the network's hidden layers. From 33 units a layer on at least four networks of 16 are
            searched, and the best are widened (:mod:`bayesdd.pinn.wide`).
        points: Points at which the equation is asked for; default 256 for each input and parameter, and half as many
            again as the networks that are searched have weights.
        modes: Searches; of wide networks: how many of those searched are widened.
        steps: Most steps of a search.
        device: ``cpu``, ``cuda`` or ``auto``. A GPU pays from some thousand weights on.

    Returns:
        The surrogate.

    Raises:
        Refusal: Data, noise, sizes or device do not fit the problem, an output is neither measured nor fixed by a
            condition, the memory does not suffice, or all searches fail.

    Warns:
        FitWarning: Conditions fix different values where they meet, searches disagree or end in different unknowns,
            corrections hardly help, measurements do not lie in their intervals or lie off the field in a regular
            way, or an unknown has not been learned.

    Example:
        >>> surrogate = pinn.fit(decay, {"t": [0.5, 1.0], "start": [1.0, 2.0], "u": [0.61, 0.74]}, hidden=(6,), seed=0)
        >>> mean, sd = surrogate.predict({"t": [2.0], "start": [1.0]})["u"]
        >>> mean.shape, sd.shape
        ((1,), (1,))
    """
    if not isinstance(problem, Problem):
        raise Refusal(f"pinn.fit needs a pinn.Problem, got {type(problem).__name__}.")
    seed, steps = arguments.seed(seed, "pinn.fit"), arguments.whole(steps, "pinn.fit: steps=", 1, 10**6)
    count = arguments.whole(modes, "pinn.fit: modes=", 1, 10**4)
    hidden = _widths(hidden)
    where, seen = resolve(device), measured(problem, data)
    _check_fixed(problem, seen)
    outputs = tuple(_typical(problem, name, seen, seed) for name in problem.names.outputs)
    more = searches.growth(hidden)
    networks = Networks.of(problem, tuple(units - more for units in hidden), outputs)
    points = max(POINTS * len(problem.ranges), 3 * networks.dim // 2) if points is None else points
    points = arguments.whole(points, "pinn.fit: points=", 1, 10**9)
    few = all_terms(problem, seen, 1, seed)
    rows = points * problem.equations + sum(term.count * len(term.names) for term in few)
    wide = Networks.of(problem, tuple(units + searches.WIDER for units in hidden), outputs).dim
    _check_memory(rows, count, wide, where)
    terms = all_terms(problem, seen, points, seed)
    known = _known(problem, terms, noise)
    starts = max(count, searches.SEARCHES) if more else count
    start = torch.randn(starts, networks.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    terms = [term.to(where) for term in terms]
    _check_finite(networks, terms, start.to(where))
    with threads_for(wide):
        found = searches.search(networks, terms, start.to(where), known.to(where), steps)
        found, generator = _kept(networks, found, terms, count), torch.Generator().manual_seed(seed + 1)
        wider, theta, scales = searches.corrected(networks, terms, found, known.to(where), generator, more)
        surrogate: Surrogate = polished(Surrogate(wider, hidden, tuple(terms), theta, scales, seed, found.steps))
    _warn(surrogate)
    return surrogate


def _widths(hidden: Any) -> tuple[int, ...]:
    if isinstance(hidden, str) or not isinstance(hidden, Sequence) or not hidden:
        raise WrongType(
            f"pinn.fit: hidden= needs the widths of the hidden layers, such as (16, 16), got {hidden!r:.60}."
        )
    return tuple(arguments.whole(width, "pinn.fit: each width of hidden=", 1, 10**6) for width in hidden)


def _check_finite(networks: Networks, terms: Sequence[Term], start: Tensor) -> None:
    with torch.no_grad():
        left = residuals(networks, terms, start)
    for name, part in zip((name for term in terms for name in term.names), left, strict=True):
        if not bool(part.isfinite().all()):
            raise Refusal(
                f"pinn.fit: {name} is not finite at draws of the prior, where fields take either sign: check "
                "logarithms, roots and divisions, or declare typical ranges by outputs={...}."
            )


def _check_fixed(problem: Problem, seen: Mapping[str, Any]) -> None:
    named = {problem.names.field(name)[0] for c in problem.conditions for name in problem.split(c)[1]}
    for name in problem.names.outputs:
        if name not in seen and name not in named:
            raise Refusal(
                f"pinn.fit: no condition fixes the output {name!r} and nothing of it is measured: add a pinn.at(..., "
                f"{name}=...) or a column {name!r}."
            )
    if not problem.conditions and not seen:
        raise Refusal("pinn.fit: the problem has no conditions and there are no data: nothing fixes a solution.")


def _typical(problem: Problem, name: str, seen: Mapping[str, tuple[Columns, Tensor]], seed: int) -> tuple[float, float]:
    """Middle and unit of a field: as declared, or of what measurements and conditions say of it."""
    if isinstance(problem.outputs, Mapping):
        low, high = problem.outputs[name]
        return (low + high) / 2, (high - low) / 2
    known = [seen[name][1]] if name in seen else []
    for condition in problem.conditions:
        known += _fixed(problem, condition, name, seed)
    if not known:
        return 0.0, 1.0
    values = torch.cat(known)
    low, high = float(values.min()), float(values.max())
    return (low + high) / 2, (high - low) / 2 or abs(low) or 1.0


def _fixed(problem: Problem, condition: Condition, name: str, seed: int) -> list[Tensor]:
    """Values of a field by a condition that uses no other field and nothing unknown."""
    value = problem.split(condition)[1].get(name)
    found = fixed_values(problem, value, condition_terms(problem, condition, seed)[-1].points)
    return [] if found is None else [found]


def _known(problem: Problem, terms: list[Term], noise: Any) -> Tensor:
    """Known noise scale of every group, NaN where it is to be found."""
    if noise is not None and all(term.observed is None for term in terms):
        raise Refusal("pinn.fit: noise= is that of measurements, but there are no data: leave it out.")
    given = noise if isinstance(noise, Mapping) else dict.fromkeys(problem.names.outputs, noise)
    if strange := [name for name in given if name not in problem.names.outputs]:
        raise Refusal(
            f"pinn.fit: noise= names {strange[0]!r}, which is none of the outputs {list(problem.names.outputs)}."
        )
    known = {
        name: arguments.positive(sd, f"pinn.fit: noise= of {name!r}") for name, sd in given.items() if sd is not None
    }
    each = [(term, name) for term in terms for name in term.names]
    found = [math.nan if term.observed is None else known.get(name, math.nan) for term, name in each]
    return torch.tensor(found, dtype=torch.float64)


def _check_memory(rows: int, count: int, dim: int, device: torch.device) -> None:
    need, free = searches.memory(rows, count, dim), available(device)
    if need > free:
        raise Refusal(
            f"pinn.fit: {count} searches of {dim:,} weights need {need / 2**30:.1f} GiB, but {device} has "
            f"{free / 2**30:.1f} GiB free: take fewer points= or modes=, or smaller hidden=."
        )


def _kept(networks: Networks, found: searches.Modes, terms: list[Term], most: int) -> searches.Modes:
    """The best search and those as good, by what they leave of equation and conditions, and by the measurements.

    Of all that meet the equation the best is the one that explains the measurements best: how sharply it is met says
    nothing, as a field that is a straight line meets one of its own to the last digit. Others are kept if they meet the
    equation within a factor as sharply, and the measurements within some nats.
    """
    if not bool(found.theta.isfinite().all()):
        raise Refusal(
            "pinn.fit: the equation is not finite where searches went: check logarithms, roots and divisions."
        )
    weight = torch.tensor([term.count if term.observed is None else 0 for term in terms for _ in term.names])
    weight = weight.to(found.noise) / weight.sum()
    quality, relative = ((scale.log() * weight).sum(1) for scale in (found.noise, found.noise / found.unit))
    if not bool(quality.isfinite().any()):
        raise Refusal("pinn.fit: every search has failed: give data and ranges in units in which they are about one.")
    explained = _explained(networks, found, terms)
    met = (quality <= quality.nan_to_num(torch.inf).min() + math.log(APART)) | (relative <= math.log(MET))
    seen = any(term.observed is not None for term in terms)
    best = torch.where(met, explained, -torch.inf).argmax() if seen else quality.nan_to_num(torch.inf).argmin()
    near = (quality <= quality[best] + math.log(APART)) & (explained >= explained[best] - NATS)
    order = quality.argsort()
    order = torch.cat([best[None], order[near[order] & (order != best)]])[:most]
    return replace(found, theta=found.theta[order], noise=found.noise[order])


def _explained(networks: Networks, found: searches.Modes, terms: list[Term]) -> Tensor:
    """Log density of all measurements by every search, but for a constant: ``(S,)``."""
    total, at = found.theta.new_zeros(len(found.theta)), 0
    with torch.no_grad():
        for term in terms:
            if term.observed is not None:
                scale = found.noise[:, at, None]
                (off,) = residuals(networks, [term], found.theta)
                total = total - (0.5 * (off / scale) ** 2 + scale.log()).sum(1)
            at += len(term.names)
    return total.nan_to_num(-torch.inf, -torch.inf, -torch.inf)


def _warn(surrogate: Surrogate) -> None:
    for said in [*jumps(surrogate.problem), *unlearned(surrogate), *surrogate.doubts]:
        warnings.warn(f"pinn.fit: {said}", FitWarning, stacklevel=4)
