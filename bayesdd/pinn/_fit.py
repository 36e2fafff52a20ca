"""From a problem and measurements to a surrogate: networks of their own scale, all rows, several searches."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bayesdd.numerics import arguments
from bayesdd.numerics.devices import resolve
from bayesdd.numerics.refusal import Refusal
from bayesdd.pinn import modes as searches
from bayesdd.pinn.measurements import measured
from bayesdd.pinn.names import State
from bayesdd.pinn.problem import Condition, Problem, periodic
from bayesdd.pinn.remainder import MOST
from bayesdd.pinn.residuals import (
    Columns,
    Networks,
    Term,
    all_terms,
    condition_terms,
    equation_term,
    field_term,
    residuals,
    sobol,
)
from bayesdd.pinn.spread import widening
from bayesdd.pinn.surrogate import FitWarning, Surrogate

POINTS = 256  # of the equation, for each input and parameter
APART = 5.0  # geometric mean of scales, over the best search's, beyond which a search has failed
UNMOVED = 0.9  # of a prior's sd: a posterior that is no narrower has learned nothing
UNMET = 0.2  # of what constant fields leave of an equation: a search that leaves more has not solved it
OWN = 0.8  # share of a function's variance that is between modes: what each says of itself explains the rest
DISAGREE = 0.05  # of a field's range: modes that differ by more are said
LEAST_HELD, FEWEST = 0.7, 20  # share of measurements in their own 90 % intervals that is doubted, from so many on


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
    well are widened and solve for what their residuals ask for. They count alike: the mean is theirs, the spread that
    of their linearised Laplace approximations, of their differences, and of what the correction has left
    (:mod:`bayesdd.pinn.remainder`).

    Args:
        problem: The problem.
        data: Measurements: a column ``(N,)`` for every input and parameter and for some outputs, NaN where a value is
            missing; None where nothing is measured.
        noise: Standard deviation of measurements, one number or by output; None: inferred.
        seed: Seed of points and of searches; equal seeds give equal results.
        hidden: Widths of the network's hidden layers. On one core 2 x 16 takes seconds, 2 x 100 minutes.
        points: Points at which the equation is asked for; default 256 for each input and parameter, and half as many
            again as weights.
        modes: Searches.
        steps: Most steps of a search.
        device: ``cpu``, ``cuda`` or ``auto``. A GPU pays from some thousand weights on.

    Returns:
        The surrogate.

    Raises:
        Refusal: Data, noise, sizes or device do not fit the problem, an output is neither measured nor fixed by a
            condition, the memory does not suffice, or all searches fail.

    Warns:
        FitWarning: Searches disagree, wider networks do not come closer, measurements do not lie in their intervals,
            or an unknown has not been learned.

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
    where, seen = resolve(device), measured(problem, data)
    _check_fixed(problem, seen)
    outputs = tuple(_typical(problem, name, seen, seed) for name in problem.names.outputs)
    networks = Networks.of(problem, tuple(hidden), outputs)
    points = max(POINTS * len(problem.ranges), 3 * networks.dim // 2) if points is None else points
    points = arguments.whole(points, "pinn.fit: points=", 1, 10**9)
    few = all_terms(problem, seen, 1, seed)
    rows = points * problem.equations + sum(term.count * len(term.names) for term in few)
    wide = Networks.of(problem, tuple(units + searches.WIDER for units in hidden), outputs).dim
    _check_memory(rows, count, wide, where)
    terms = all_terms(problem, seen, points, seed)
    known = _known(problem, terms, noise)
    start = torch.randn(count, networks.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    terms = [term.to(where) for term in terms]
    found = searches.search(networks, terms, start.to(where), known.to(where), steps)
    kept, generator = _kept(found, terms), torch.Generator().manual_seed(seed + 1)
    scales = found.noise[kept]
    wider, theta = searches.corrected(networks, terms, found.theta[kept], scales, generator)
    surrogate = Surrogate(wider, tuple(hidden), tuple(terms), theta, scales, seed, found.steps)
    _warn(surrogate)
    return surrogate


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
    if value is None or value is periodic:
        return []
    if not callable(value):
        return [torch.tensor([float(value)], dtype=torch.float64)]
    points = condition_terms(problem, condition, seed)[-1].points
    constants = {key: torch.tensor(float(number), dtype=torch.float64) for key, number in problem.constants.items()}

    def nothing(_: str) -> Tensor:
        raise LookupError

    try:
        found = torch.as_tensor(value(State(points, nothing), State(constants, nothing)), dtype=torch.float64)
    except LookupError:
        return []
    return [found.reshape(-1)]


def _known(problem: Problem, terms: list[Term], noise: Any) -> Tensor:
    """Known noise scale of every group, NaN where it is to be found."""
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
    need = searches.memory(rows, count, dim)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if need > free:
        raise Refusal(
            f"pinn.fit: {count} searches of {dim:,} weights need {need / 2**30:.1f} GiB, but {device} has "
            f"{free / 2**30:.1f} GiB free: take fewer points= or modes=, or smaller hidden=."
        )


def _kept(found: searches.Modes, terms: list[Term]) -> Tensor:
    """Searches that end within a factor of the best, by the scales that evidence leaves to what is to be zero."""
    if not bool(found.theta.isfinite().all()):
        raise Refusal(
            "pinn.fit: the equation is not finite where searches went: check logarithms, roots and divisions."
        )
    weight = torch.tensor([term.count if term.observed is None else 0 for term in terms for _ in term.names])
    weight = weight.to(found.noise)
    quality = (found.noise.log() * weight).sum(1) / weight.sum()
    order = quality.argsort()
    return order[quality[order] <= quality[order[0]] + math.log(APART)]


def _warn(surrogate: Surrogate) -> None:
    for name, (mean, sd) in surrogate.constants.items():
        prior: Any = surrogate.problem.unknown[name]
        if sd > UNMOVED * prior[1]:
            before = f"{prior[0]:g} +- {prior[1]:g}"
            _say(f"the unknown {name!r} is not identified: posterior {mean:.3g} +- {sd:.2g}, prior {before}")
    everywhere = sobol(surrogate.problem.ranges, 256, surrogate.seed + 1)
    predicted = surrogate.predict(everywhere)
    for name in surrogate.networks.functions:
        prior = surrogate.problem.unknown[name]
        if (predicted[name][1] ** 2).mean() ** 0.5 > UNMOVED * prior.sd:
            _say(f"the unknown function {name!r} is not identified: its posterior is as wide as its prior")
        with torch.no_grad():
            term = field_term(surrogate.problem, [name], everywhere).to(surrogate.theta.device)
            values = residuals(surrogate.networks, [term], surrogate.theta)[0]
        between = float(values.var(0, correction=0).mean()) * widening(len(values)) ** 2
        if between > OWN * float((predicted[name][1] ** 2).mean()):
            _say(
                f"searches end in different functions {name!r}, each far surer of itself: intervals of {name!r} and of "
                "the fields that it moves may be too narrow: more steps=, modes= or measurements"
            )
    for name, apart in surrogate.disagreement(everywhere).items():
        if apart > DISAGREE:
            _say(f"searches disagree on {name!r} by {apart:.0%} of its range: more steps=, hidden= or points=")
    _warn_unmet(surrogate)
    _warn_uncorrected(surrogate)
    for name, share in surrogate.held.items():
        rows = next(term.count for term in surrogate.terms if term.observed is not None and term.names == (name,))
        if share < LEAST_HELD and rows >= FEWEST:
            _say(f"{share:.0%} of the measurements of {name!r} lie in their 90% intervals: equation or noise are wrong")


def _warn_uncorrected(surrogate: Surrogate) -> None:
    """Says where wider networks meet the equation or a condition hardly better than those that were searched."""
    for name, share in surrogate.shares.items():
        if share > MOST:
            _say(
                f"wider networks still leave {share:.0%} of the residuals of {name}: intervals are a guess and may be "
                "too narrow: more hidden=, points= or steps="
            )


def _warn_unmet(surrogate: Surrogate) -> None:
    """Says where the equation leaves a good part of what constant fields leave of it: the search has not solved it."""
    rows = sobol(surrogate.problem.ranges, 1024, surrogate.seed + 1)
    term = equation_term(surrogate.problem, rows).to(surrogate.theta.device)
    with torch.no_grad():
        left = residuals(surrogate.networks, [term], surrogate.theta)
        flat = residuals(surrogate.plain, [term], surrogate.theta.new_zeros(1, surrogate.plain.dim))
    for name, one, of in zip(term.names, left, flat, strict=True):
        share = float(one.square().mean().sqrt() / of.square().mean().sqrt().clamp_min(1e-300))
        if share > UNMET and float(of.abs().max()) > 0:
            _say(f"the {name} is not met: constant fields leave {1 / share:.2g} times as much: more steps= or hidden=")


def _say(what: str) -> None:
    warnings.warn(f"pinn.fit: {what}", FitWarning, stacklevel=4)
