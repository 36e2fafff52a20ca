r"""A Bayesian physics-informed surrogate ``u(x, alpha; theta)`` of a family of differential equations.

.. math::
    y_n \sim N(u(x_n, \alpha_n), \sigma^2), \qquad
    0 \sim N(R[u](x_c, \alpha_c) - f_c, \sigma_r^2), \qquad
    b_k \sim N(u(x_k, \alpha_k), \sigma_b^2).

A target is a list of three tasks over the same weights: noisy measurements, the equation at collocation points, known
boundary values. They share the sites of the network (:mod:`bayesdd.networks.mlp`). Each has a noise scale of its own,
inferred by default and a nuisance of the target, since it is not known beforehand how well a network of this size can
satisfy the equation. The priors of the scales have medians of 0.1 for measurements, 0.03 for the residual and 0.01 for
boundary values, within a factor of seven, where solutions are of order one. The unknown constants of an inverse problem
are sites of the equation's task.

The residual alone does not determine the solution at an alpha that was never measured, so boundary values over the
whole range of alpha are part of the target. The student is a plain network on rows (x, alpha, y):
:func:`bayesdd.networks.bnn.student`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesdd.data.columns import Columns, table
from bayesdd.density.density import Density
from bayesdd.networks import bnn
from bayesdd.networks import mlp as nets
from bayesdd.networks.mlp import Network
from bayesdd.numerics.refusal import Refusal
from bayesdd.pinn import equation
from bayesdd.pinn.equation import Family
from bayesdd.task.contract import chosen
from bayesdd.task.task import Task

SCALES = {"noise": 0.1, "residual_noise": 0.03, "boundary_noise": 0.01}  # sites of scales, and their priors' medians


def residual_model(
    x: Tensor,
    alpha: Tensor | float = 0.0,
    y: Tensor | float = 0.0,
    *,
    family: Family,
    network: Network,
    noise: float | None = None,
    unknown: Mapping[str, tuple[float, float]] | None = None,
) -> Tensor:
    """The equation at collocation points, seen as observations of zero.

    Args:
        x: Points, shape ``(N, d)``.
        alpha: Boundary parameters, shape ``(N,)``.
        y: The equation's right side, measured or known, shape ``(N,)``.
        family: The equation.
        network: Shape and prior of u.
        noise: Known standard deviation of the residual (of the measured right side); None: site ``residual_noise``.
        unknown: Constants to be inferred, name -> mean and standard deviation of a normal prior.

    Returns:
        The residuals, shape ``(N,)``.
    """
    layers = nets.sample(network)
    sigma = bnn.scale("residual_noise", SCALES["residual_noise"]) if noise is None else noise
    constants = {name: pyro.sample(name, dist.Normal(*prior)) for name, prior in (unknown or {}).items()}
    alpha = torch.as_tensor(alpha, dtype=x.dtype).expand(len(x))
    u = nets.jet(network, layers, nets.inputs(network, x, alpha), x.shape[-1])
    r = family.residual(x, alpha, u, {**family.parameters, **constants}) - y
    with pyro.plate("data", len(x)):
        return pyro.sample("residual", dist.Normal(r, sigma), obs=torch.zeros_like(r))


def boundary_model(
    x: Tensor, alpha: Tensor | float = 0.0, y: Tensor | None = None, *, network: Network, noise: float | None = None
) -> Tensor:
    """Known boundary values y at points x of the boundary; ``noise`` None: site ``boundary_noise``. See bnn.model."""
    layers = nets.sample(network)
    sigma = bnn.scale("boundary_noise", SCALES["boundary_noise"]) if noise is None else noise
    u = nets.value(network, layers, nets.inputs(network, x, alpha))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(u, sigma), obs=y)


def surrogate(family: Family, hidden: tuple[int, ...] = (16, 16), spread: float | tuple[float, ...] = 2.0) -> Network:
    """A network that reads x and alpha over the family's domain."""
    ranges = [*family.x, *([] if family.alpha is None else [family.alpha])]
    centre = tuple((low + high) / 2 for low, high in ranges)
    return Network(centre, tuple((high - low) / 2 for low, high in ranges), hidden, spread)


def measurements(
    family: Family, rows: Mapping[str, Any], *, network: Network | None = None, noise: float | None = None
) -> Task:
    """Noisy measurements of u.

    Args:
        family: The equation; it says what x and alpha may be.
        rows: Columns ``x`` (N, d), ``alpha`` (N,) where the family has one, ``y`` (N,).
        network: Shape and prior; default :func:`surrogate`. Tasks of one target need the same.
        noise: Known standard deviation; None: the site ``noise``.

    Raises:
        ValueError: x or alpha outside the domain.
    """
    return bnn.student(
        _read(family, rows, bnn.model, "measurements"), network=network or surrogate(family), noise=noise
    )


def residual(
    family: Family,
    rows: Mapping[str, Any],
    *,
    network: Network | None = None,
    noise: float | None = None,
    unknown: Mapping[str, tuple[float, float]] | None = None,
) -> Task:
    """The equation at rows ``x``, ``alpha``, and its right side ``y``; see :func:`residual_model`.

    Raises:
        ValueError: x or alpha outside the domain, an unknown constant that the equation does not have, a residual that
            is not finite.
    """
    columns = _read(family, rows, residual_model, "residual")
    if strange := sorted((unknown or {}).keys() - family.parameters.keys()):
        raise Refusal(
            f"residual of {family.name} has no constant {strange[0]!r}, only {sorted(family.parameters)}: "
            "unknown= names constants of the equation."
        )
    model = partial(residual_model, family=family, network=network or surrogate(family), noise=noise)
    return Task(partial(model, unknown=dict(unknown)) if unknown else model, columns)


def boundary(
    family: Family, rows: Mapping[str, Any], *, network: Network | None = None, noise: float | None = None
) -> Task:
    """Known boundary values ``y`` at rows ``x``, ``alpha``; ``noise`` None: the site ``boundary_noise``.

    Raises:
        ValueError: x or alpha outside the domain.
    """
    columns = _read(family, rows, boundary_model, "boundary")
    return Task(partial(boundary_model, network=network or surrogate(family), noise=noise), columns)


def _read(family: Family, rows: Any, model: Callable[..., Any], who: str) -> Columns:
    """The columns that a model takes of whatever a Task takes, checked to lie inside the domain."""
    bound = partial(model, family=None, network=None, noise=None, unknown=None)
    choose = partial(chosen, bound, name=f"{who} of {family.name}", explicit=False)
    columns = table(rows, choose=choose, again=True).columns
    equation.check_rows(family, columns, who)
    return columns


def target(
    family: Family,
    rows: Mapping[str, Any],
    *,
    network: Network | None = None,
    collocation: int = 512,
    alphas: int = 64,
    seed: int = 0,
) -> list[Task]:
    """Measurements, the equation, and boundary values over the whole range of alpha: a target, all scales inferred.

    Args:
        family: The equation.
        rows: The measurements, see :func:`measurements`.
        network: Shape and prior; default :func:`surrogate`.
        collocation: Number of collocation points, over the whole domain of x and alpha.
        alphas: Number of alphas with boundary values.
        seed: Seed of both sets of points.

    Returns:
        The three tasks; leave out the third to see what boundary values are worth.
    """
    network = network or surrogate(family)
    return [
        measurements(family, rows, network=network),
        residual(family, equation.collocation(family, collocation, seed), network=network),
        boundary(family, equation.edges(family, alphas, seed), network=network),
    ]


def starts(density: Density, count: int, seed: int = 0) -> Tensor:
    """Where searches for modes of a target begin, ``(count, P)``: weights drawn from their prior, scales at its median.

    ``density`` is the joint posterior of tasks made here.
    """
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, density.dim, generator=generator, dtype=torch.float64)
    for name, typical in SCALES.items():
        if name in density.starts:
            points[:, density.starts[name][0]] = math.log(typical)
    return points.to(density.device)
