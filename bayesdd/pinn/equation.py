r"""Families of differential equations with a boundary parameter, and their checks.

A family is an equation on a box, boundary or initial values that depend on one number alpha, and the solution
``u(x, alpha)`` in closed form (or by a solver, to many digits). Alpha is thought of as normal over the population,
cut off at three standard deviations: its declared range is the mean plus or minus three standard deviations. What is
measured comes from the upper tail, what is asked for from the lower one: boundary conditions never measured.
A family that is affine in alpha (heat, Laplace or Helmholtz with amplitude alpha) tests nothing there: a model that is
affine in alpha has no error outside.

The instances: ``models/pde_*.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from bayesdd.networks.mlp import Jet
from bayesdd.numerics.refusal import Refusal

TAIL = 0.5  # standard deviations from the mean at which the two tails of alpha begin
POINTS = 64  # at which an exact solution is checked

Columns = dict[str, Tensor]
Residual = Callable[[Tensor, Tensor, Jet, Mapping[str, Tensor | float]], Tensor]
Boundary = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]


def _no_source(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.zeros_like(alpha)


@dataclass(frozen=True)
class Family:
    """An equation ``residual(x, alpha, u, parameters) = source(x, alpha)`` with boundary values.

    Attributes:
        name: What tables call it.
        x: Domain of x, an interval an axis; time, where there is any, is the last axis.
        alpha: Range of the boundary parameter, mean -+ 3 standard deviations; None for a single problem.
        residual: ``(x (N, d), alpha (N,), jet of u, parameters) -> (N,)``, the left side of the equation.
        boundary: ``(alpha (N,), generator) -> points (N, K, d), values (N, K)``: the known boundary values.
        exact: The solution, ``(x (N, d), alpha (N,)) -> (N,)``, differentiable in x.
        source: The right side, ``(x, alpha) -> (N,)``: what a sensor of it would measure; zero if left out.
        parameters: The equation's constants by name; an inverse problem infers some of them.
        nonlinear_in_alpha: Whether solutions are more than affine in alpha.
        tolerance: Residual of the exact solution that counts as rounding, relative to the equation's largest term.
    """

    name: str
    x: tuple[tuple[float, float], ...]
    alpha: tuple[float, float] | None
    residual: Residual = field(repr=False)
    boundary: Boundary = field(repr=False)
    exact: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    source: Callable[[Tensor, Tensor], Tensor] = field(default=_no_source, repr=False)
    parameters: Mapping[str, float] = field(default_factory=dict)
    nonlinear_in_alpha: bool = True
    tolerance: float = 1e-9


def ends(left: Callable[[Tensor], Tensor], right: Callable[[Tensor], Tensor], x: tuple[float, float]) -> Boundary:
    """Boundary values of one axis: u(x[0]) = left(alpha), u(x[1]) = right(alpha)."""

    def boundary(alpha: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        points = torch.tensor(x, dtype=alpha.dtype)[:, None].expand(len(alpha), 2, 1)
        return points, torch.stack([left(alpha), right(alpha)], 1)

    return boundary


def initial_and_sides(
    exact: Callable[[Tensor, Tensor], Tensor], x: tuple[float, float], time: float, *, initial: int, side: int
) -> Boundary:
    """Values of a solution in x and time at random points of the initial line and of both sides, anew for every alpha.

    Args:
        exact: The solution, ``(x and time (N, 2), alpha (N,)) -> (N,)``.
        x: Ends of the interval.
        time: The last time.
        initial: Points at time zero.
        side: Points at each end.
    """
    low, high = x

    def boundary(alpha: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        unit = torch.rand(len(alpha), initial + 2 * side, generator=generator, dtype=torch.float64)
        place = torch.cat([low + (high - low) * unit[:, :initial], torch.full_like(unit[:, :side], low)], 1)
        place = torch.cat([place, torch.full_like(unit[:, :side], high)], 1)
        when = torch.cat([torch.zeros_like(unit[:, :initial]), time * unit[:, initial:]], 1)
        points = torch.stack([place, when], -1)
        each = alpha.repeat_interleave(points.shape[1])
        return points, exact(points.flatten(0, 1), each).reshape(len(alpha), -1)

    return boundary


def upper_tail(family: Family, count: int, seed: int) -> Tensor:
    """Alphas of what is measured: beyond half a standard deviation above the mean, shape ``(count,)``."""
    return _tail(family, count, seed, 1.0)


def lower_tail(family: Family, count: int, seed: int) -> Tensor:
    """Alphas of what is asked for, out of distribution: the other tail, shape ``(count,)``."""
    return _tail(family, count, seed, -1.0)


def _tail(family: Family, count: int, seed: int, sign: float) -> Tensor:
    """By the inverse of the normal distribution function, cut off at three standard deviations."""
    low, high = _range(family)
    share = torch.special.ndtr(torch.tensor([TAIL, 3.0], dtype=torch.float64))
    uniform = torch.from_numpy(np.random.default_rng([seed, 1]).uniform(size=count))
    normal = torch.special.ndtri(share[0] + (share[1] - share[0]) * uniform)
    found: Tensor = (low + high) / 2 + sign * normal * (high - low) / 6
    return found


def measured(family: Family, rows: int = 200, noise: float = 0.1, seed: int = 0) -> Columns:
    """Simulated measurements: x uniform, alpha in the upper tail, y the solution plus normal noise."""
    rng = np.random.default_rng(seed)
    x = _box(family, torch.from_numpy(rng.uniform(size=(rows, len(family.x)))))
    alpha = upper_tail(family, rows, seed) if family.alpha else torch.zeros(rows, dtype=torch.float64)
    y = family.exact(x, alpha) + noise * torch.from_numpy(rng.normal(size=rows))
    return columns(family, x, alpha, y)


def collocation(family: Family, rows: int, seed: int = 0) -> Columns:
    """Points (Sobol) over the whole domain of x and alpha; y is the equation's right side there."""
    unit = SobolEngine(len(family.x) + 1, scramble=True, seed=seed).draw(rows, dtype=torch.float64)
    x, alpha = _box(family, unit[:, :-1]), _spread(family, unit[:, -1])
    return columns(family, x, alpha, family.source(x, alpha))


def inputs(family: Family, rows: int, seed: int = 0) -> Columns:
    """Inputs (Sobol) with x over its whole domain and alpha by its normal distribution: what a surrogate is for."""
    unit = SobolEngine(len(family.x) + 1, scramble=True, seed=seed).draw(rows, dtype=torch.float64)
    low, high = _range(family)
    cut = torch.special.ndtr(torch.tensor(-3.0, dtype=torch.float64))
    normal = torch.special.ndtri(cut + (1 - 2 * cut) * unit[:, -1])
    return {"x": _box(family, unit[:, :-1]), "alpha": (low + high) / 2 + normal * (high - low) / 6}


def edges(family: Family, alphas: int, seed: int = 0) -> Columns:
    """Known boundary values, y, at alphas (Sobol) over their whole range; K rows an alpha."""
    unit = SobolEngine(1, scramble=True, seed=seed).draw(alphas, dtype=torch.float64)[:, 0]
    alpha = _spread(family, unit) if family.alpha else torch.zeros(1, dtype=torch.float64)
    points, values = family.boundary(alpha, torch.Generator().manual_seed(seed))
    return columns(family, points.flatten(0, 1), alpha.repeat_interleave(points.shape[1]), values.flatten())


def grid(family: Family, alpha: Tensor, points: int = 64) -> Columns:
    """The noise-free solution, y, on a grid of about so many points for every alpha ``(A,)``, one after another."""
    side = max(2, round(points ** (1 / len(family.x))))
    axes = [torch.linspace(low, high, side, dtype=torch.float64) for low, high in family.x]
    x = torch.cartesian_prod(*axes).reshape(-1, len(family.x))
    everywhere, each = x.repeat(len(alpha), 1), alpha.repeat_interleave(len(x))
    return columns(family, everywhere, each, family.exact(everywhere, each))


def columns(family: Family, x: Tensor, alpha: Tensor, y: Tensor) -> Columns:
    """Rows as columns ``x`` (N, d), ``alpha`` (N,) where the family has one, ``y`` (N,)."""
    return {"x": x, "y": y} if family.alpha is None else {"x": x, "alpha": alpha, "y": y}


def check_rows(family: Family, rows: Mapping[str, Tensor], who: str) -> None:
    """Refuses rows outside the domain.

    Raises:
        ValueError: Columns of the wrong shape, or x or alpha outside the declared domain; one line.
    """
    x = torch.as_tensor(rows["x"], dtype=torch.float64)
    if x.dim() != 2 or x.shape[1] != len(family.x):
        raise Refusal(f"{who} of {family.name} needs x of shape (N, {len(family.x)}), got {tuple(x.shape)}.")
    named = [(f"x[{axis}]", x[:, axis], bounds) for axis, bounds in enumerate(family.x)]
    if family.alpha is not None:
        if "alpha" not in rows:
            raise Refusal(f"{who} of {family.name} needs a column 'alpha', got {sorted(rows)}.")
        named.append(("alpha", torch.as_tensor(rows["alpha"], dtype=torch.float64), family.alpha))
    for name, found, (low, high) in named:
        slack = 1e-9 * (high - low)
        outside = ~((found >= low - slack) & (found <= high + slack))
        if bool(outside.any()):
            row = int(outside.nonzero()[0, 0])
            raise Refusal(
                f"{who} of {family.name}: {name} = {float(found[row]):.6g} in row {row} lies outside its domain "
                f"[{low:g}, {high:g}]; drop the row or widen the family."
            )


def check_exact(family: Family, seed: int = 0) -> None:
    """Checks by automatic differentiation that the exact solution solves the equation and has the boundary values.

    Raises:
        ValueError: It does not, or a residual is not finite, or a boundary point lies outside; one line with numbers.
    """
    rows = collocation(family, POINTS, seed)
    x, alpha = rows["x"].requires_grad_(True), rows.get("alpha", torch.zeros(POINTS, dtype=torch.float64))
    u = jet_of(family.exact, x, alpha)
    left = family.residual(x, alpha, u, family.parameters)
    worst = (left - rows["y"]).detach().abs().max()
    size = torch.stack([part.detach().abs().max() for part in (u.u, u.first, u.second, rows["y"])]).max()
    if not bool(torch.isfinite(left).all()):
        raise Refusal(f"{family.name}: the residual of its exact solution is not finite; check its domain.")
    if not float(worst) <= family.tolerance * max(1.0, float(size)):
        raise Refusal(
            f"{family.name}: its exact solution fails its own equation: residual {float(worst):.3g}, where derivatives "
            f"are up to {float(size):.3g}; correct the solution or the residual."
        )
    known = edges(family, POINTS, seed)
    check_rows(family, known, "a boundary condition")
    at = known.get("alpha", torch.zeros(len(known["x"]), dtype=torch.float64))
    gap = float((family.exact(known["x"], at) - known["y"]).abs().max())
    if not gap <= family.tolerance * max(1.0, float(size)):
        raise Refusal(f"{family.name}: its exact solution misses its own boundary values by {gap:.3g}.")


def jet_of(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, alpha: Tensor) -> Jet:
    """Value and derivatives of any function of x ``(N, d)`` by automatic differentiation; x must require gradients."""
    u = function(x, alpha)
    (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    second = [torch.autograd.grad(first[:, axis].sum(), x, create_graph=True)[0][:, axis] for axis in range(x.shape[1])]
    return Jet(u, first.T, torch.stack(second))


def _range(family: Family) -> tuple[float, float]:
    if family.alpha is None:
        raise Refusal(f"{family.name} is a single problem: it has no boundary parameter and no tails.")
    return family.alpha


def _box(family: Family, unit: Tensor) -> Tensor:
    low, high = torch.tensor(family.x, dtype=torch.float64).unbind(1)
    return low + (high - low) * unit


def _spread(family: Family, unit: Tensor) -> Tensor:
    low, high = family.alpha or (0.0, 0.0)
    return low + (high - low) * unit
