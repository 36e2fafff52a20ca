r"""Modes of posterior densities, and the Gaussian of the curvature there (Laplace's approximation).

.. math:: N(\hat\theta, A^{-1}), \qquad A = -\nabla^2 \log p(\hat\theta, D)

Of few latents Newton's method arrives by itself where the log joint is concave on its way. Elsewhere L-BFGS climbs near
the mode, and Newton's method, damped where the curvature is not definite, ends there. With many rows the mode of a few
of them is a start from which quasi-Newton steps arrive: n of N rows know the curvature to about :math:`\sqrt{P/n}`, so
that each step leaves that share of the distance, and BFGS updates reduce it further.

Cost: a gradient pass a step of L-BFGS, P + 1 passes a step of Newton's method; of many rows a few gradient passes and
one Hessian.

Source: Tierney & Kadane, "Accurate approximations for posterior moments and marginal densities", JASA 1986; Nocedal &
Wright, "Numerical optimization", 2006, chapters 3, 6 and 7.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.density.passes import Part
from bayesdd.numerics.gaussian import Gaussian
from bayesdd.task.starts import finite_starts

SEARCHES = 3
NEAR = 0.01  # squared Mahalanobis distance within which two searches ended in the same mode
FEW, FEW_STEPS = 20, 15  # latents whose Hessians cost what a climb does, and Newton steps that then arrive
NEWTON_STEPS, DAMPINGS = 50, 12  # most steps, and most dampings tried for one
FLAT = 1e-10  # smallest eigenvalue of the unit-diagonal precision, relative to the largest, of a Gaussian fit
OFF = 1e-4  # squared distance from the mode, in posterior sds, beyond which a point is no mode
MANY_STEPS, HALVINGS = 30, 10  # most quasi-Newton steps on many rows, and halvings of one
CLOSE = 1e-10  # squared distance from the mode in posterior sds: it moves a KL by half of that


def fit(density: Density, *, seed: int = 0, start: Tensor | None = None) -> Gaussian | None:
    """Mode and curvature of a posterior, from an unconstrained point ``(P,)``; None where there is no Gaussian fit."""
    point = scattered(density, 1, seed)[0] if start is None else start
    found = newton(density, point, FEW_STEPS, concave=True) if density.dim <= FEW else None
    return newton(density, climb(density, point)) if found is None else found


def fits(density: Density, *, seed: int, searches: int = SEARCHES) -> list[Gaussian]:
    """Distinct modes from several starts, the heaviest (by Laplace's estimate of its mass) first; empty if none."""
    found: list[Gaussian] = []
    for start in scattered(density, searches, seed):
        mode = fit(density, start=start)
        if mode is not None and all(float(known.distance(mode.mean)) > NEAR for known in found):
            found.append(mode)
    return sorted(found, key=lambda mode: -mode.log_mass)


def climb(density: Density, start: Tensor, iterations: int = 300) -> Tensor:
    """L-BFGS on the log joint from one point ``(P,)``; ends where it stops, converged or not."""
    from scipy.optimize import minimize  # half a second, which a first result often does without

    unit = _units(curvature(density, start[None])[1])

    def negative(point: object) -> tuple[float, object]:
        draws = torch.as_tensor(point, dtype=torch.float64).to(density.device)[None] * unit
        value, gradient = density.log_joint_gradient(draws)
        if not bool(torch.isfinite(value) & torch.isfinite(gradient).all()):
            return 1e300, torch.zeros(density.dim, dtype=torch.float64).numpy()
        return -float(value), -(gradient[0] * unit).cpu().numpy()

    options = {"maxiter": iterations, "maxcor": 20, "gtol": 1e-6, "ftol": 1e-13}
    with threadpool_limits(1, user_api="blas"):  # SciPy's BLAS threads spin against torch's own
        found = minimize(negative, (start / unit).cpu().numpy(), jac=True, method="L-BFGS-B", options=options)
    return torch.as_tensor(found.x, dtype=torch.float64).to(density.device) * unit


def newton(density: Density, start: Tensor, steps: int = NEWTON_STEPS, *, concave: bool = False) -> Gaussian | None:
    """Damped Newton to the mode and the Gaussian there; None if it does not converge or is not definite there.

    With ``concave`` also None where the log joint curves upward on the way, from where another climb may arrive better.
    """
    point, damping = start[None], 0.0
    value = density.log_joint(point)
    for _ in range(steps):
        gradient, precision = curvature(density, point)
        if not bool(torch.isfinite(precision).all() & torch.isfinite(gradient).all()):
            return None
        unit, values, vectors = _spectrum(precision)
        if concave and not float(values[0]) > 0:
            return None
        scale = values.abs().clamp_min(FLAT * float(values.abs().max()) + 1e-300)
        along = vectors.T @ (unit * gradient)
        decrement = float((along**2 / scale).sum())
        if decrement < 1e-16 * max(1.0, abs(float(value))) or decrement < 1e-12:
            # Below what the value can show; the step itself still doubles the digits.
            point = point + unit * (vectors @ (along / scale))
            break
        for _ in range(DAMPINGS):
            trial = point + unit * (vectors @ (along / (scale + damping * scale.max())))
            trial_value = density.log_joint(trial)
            if bool(trial_value >= value - 1e-12 * abs(float(value))):
                point, value, damping = trial, trial_value, damping / 10 if damping > 1e-6 else 0.0
                break
            damping = max(10 * damping, 1e-4)
        else:
            break
    return gaussian_at(density, point, float(value))


def climb_many(density: Density, few: Density, start: Tensor) -> Gaussian | None:
    """Mode and curvature of many rows, from the mode ``(P,)`` of few weighted ones; None where there is no fit."""
    point = start[None]
    unit, values, vectors = _spectrum(curvature(few, point)[1])
    # Directions in which the few rows' log joint curves upward count as if it curved downward.
    root = unit[:, None] * vectors / values.abs().clamp_min(1e-10 * float(values.abs().max())).sqrt()
    inverse = root @ root.T
    value, slope = density.log_joint_gradient(point)
    for _ in range(MANY_STEPS):
        step = slope @ inverse
        gain = float((step * slope).sum())
        if not gain > 0:
            break
        if gain < CLOSE:
            found = gaussian_at(density, point, float(value))
            return found if found is not None else newton(density, point[0])
        for _ in range(HALVINGS):
            trial_value, trial_slope = density.log_joint_gradient(point + step)
            if bool(trial_value >= value - 1e-12 * value.abs()):
                break
            step = 0.5 * step
        else:
            break
        inverse = _renewed(inverse, step[0], (slope - trial_slope)[0])
        point, value, slope = point + step, trial_value, trial_slope
    return newton(density, point[0])


def gaussian_at(density: Density, point: Tensor, height: float) -> Gaussian | None:
    """The Gaussian of the curvature at a mode ``(1, P)``; None where it is not definite or the point is no mode."""
    gradient, precision = curvature(density, point)
    if not bool(torch.isfinite(precision).all() & torch.isfinite(gradient).all()):
        return None
    unit, values, vectors = _spectrum(precision)
    if float(values[0]) <= FLAT * float(values[-1]):
        return None
    if float(((vectors.T @ (unit * gradient)) ** 2 / values).sum()) > OFF:
        return None
    root = unit[:, None] * vectors / values.sqrt()
    # QR of the root: its Cholesky factor without squaring the condition number.
    upper = torch.linalg.qr(root.T)[1]
    return Gaussian(point[0], (upper * upper.diagonal().sign()[:, None]).T.contiguous(), height)


def curvature(density: Density, point: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient ``(P,)`` and negative Hessian ``(P, P)`` of the log joint at ``(1, P)``."""
    _, slope, hessian = density.likelihood_derivatives(point)
    _, prior_slope, prior_hessian = density.prior_derivatives(point)
    total = hessian[0] + prior_hessian[0]
    return slope[0] + prior_slope[0], -0.5 * (total + total.T)


def scattered(density: Density, count: int, seed: int) -> Tensor:
    """Starting points with a finite log-likelihood, shape ``(count, P)``."""
    return _by_part(density, count, lambda part: finite_starts(part.task.program, part.rows.sample, count, seed))


def prior_draws(density: Density, count: int, seed: int) -> Tensor:
    """Draws of the prior, shape ``(count, P)``."""
    return _by_part(density, count, lambda part: part.task.prior_draws(count, seed))


def _by_part(density: Density, count: int, points_of: Callable[[Part], Tensor]) -> Tensor:
    """Points of all parts, shape ``(count, P)``; of a site that several tasks share, the first one's."""
    points = torch.zeros(count, density.dim, dtype=torch.float64)
    for part in reversed(density.parts):
        points[:, part.index.cpu()] = points_of(part).cpu()
    return points.to(density.device)


def _spectrum(precision: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Units of the coordinates, eigenvalues and eigenvectors of the precision in those units."""
    unit = _units(precision)
    values, vectors = torch.linalg.eigh(unit[:, None] * precision * unit)
    return unit, values, vectors


def _units(precision: Tensor) -> Tensor:
    """Coordinate units in which the precision has a diagonal of 1: latents may be in any units."""
    diagonal = precision.diagonal().abs()
    usable = torch.isfinite(diagonal) & (diagonal > 1e-300)
    return torch.where(usable, diagonal, 1.0).rsqrt()


def _renewed(inverse: Tensor, step: Tensor, change: Tensor) -> Tensor:
    """BFGS: the inverse that maps the change of the slope to the step; kept where the curvature is not positive."""
    along = change @ step
    if not bool(along > 0):
        return inverse
    cross = torch.outer(step, inverse @ change) / along
    square = (1 + change @ inverse @ change / along) * torch.outer(step, step) / along
    renewed: Tensor = inverse - cross - cross.T + square
    return renewed
