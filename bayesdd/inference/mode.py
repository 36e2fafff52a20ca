"""TODO."""

from __future__ import annotations

import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.numerics.gaussian import Gaussian
from bayesdd.task.starts import finite_starts

STEPS = 30
CLOSE = 1e-10  # squared distance from the mode in posterior sds: it moves a KL by half of that
HALVINGS = 10

NEWTON_STEPS = 50
SEARCHES = 3
NEAR = 0.01  # squared Mahalanobis distance within which two searches ended in the same mode
FLAT = 1e-10  # smallest eigenvalue of the unit-diagonal precision, relative to the largest, of a Gaussian fit


def fit(density: Density, *, seed: int = 0, start: Tensor | None = None) -> Gaussian | None:
    """Mode and curvature of a posterior; None where there is no Gaussian fit.

    Args:
        density: The posterior.
        seed: Seed of the starting point, if none is given.
        start: Unconstrained starting point ``(P,)``.
    """
    point = scattered(density, 1, seed)[0] if start is None else start
    return newton(density, climb(density, point))


def fits(density: Density, *, seed: int, searches: int = SEARCHES) -> list[Gaussian]:
    """Distinct modes from several starts, the heaviest (by Laplace's estimate of its mass) first; empty if none."""
    found: list[Gaussian] = []
    for start in scattered(density, searches, seed):
        mode = fit(density, start=start)
        if mode is not None and all(_distance(known, mode.mean) > NEAR for known in found):
            found.append(mode)
    return sorted(found, key=lambda mode: -mode.log_mass)


def _distance(gaussian: Gaussian, point: Tensor) -> float:
    white = torch.linalg.solve_triangular(gaussian.factor, (point - gaussian.mean)[:, None], upper=False)
    return float((white**2).sum())


def scattered(density: Density, count: int, seed: int) -> Tensor:
    """Starting points with a finite log-likelihood, shape ``(count, P)``."""
    points = torch.zeros(count, density.dim, dtype=torch.float64)
    for part in reversed(density.parts):
        points[:, part.index.cpu()] = finite_starts(part.task.program, part.rows.sample, count, seed).cpu()
    return points.to(density.device)


def climb(density: Density, start: Tensor, iterations: int = 300) -> Tensor:
    """L-BFGS on the log joint from one point ``(P,)``; ends where it stops, converged or not."""
    unit = _units(curvature(density, start[None])[1])

    def negative(point: object) -> tuple[float, object]:
        draws = torch.as_tensor(point, dtype=torch.float64).to(density.device)[None] * unit
        value, gradient = density.log_joint_gradient(draws)
        if not bool(torch.isfinite(value) & torch.isfinite(gradient).all()):
            return 1e300, torch.zeros(density.dim, dtype=torch.float64).numpy()
        return -float(value), -(gradient[0] * unit).cpu().numpy()

    options = {"maxiter": iterations, "maxcor": 20, "gtol": 1e-6, "ftol": 1e-13}
    with threadpool_limits(1, user_api="blas"):  # see optimise.py
        found = minimize(negative, (start / unit).cpu().numpy(), jac=True, method="L-BFGS-B", options=options)
    return torch.as_tensor(found.x, dtype=torch.float64).to(density.device) * unit


def newton(density: Density, start: Tensor) -> Gaussian | None:
    """Damped Newton to the mode and the Gaussian there; None if it does not converge or is not definite there."""
    point, damping = start[None], 0.0
    value = density.log_joint(point)
    for _ in range(NEWTON_STEPS):
        gradient, precision = curvature(density, point)
        if not bool(torch.isfinite(precision).all() & torch.isfinite(gradient).all()):
            return None
        unit = _units(precision)
        values, vectors = torch.linalg.eigh(unit[:, None] * precision * unit)
        scale = values.abs().clamp_min(FLAT * float(values.abs().max()) + 1e-300)
        along = vectors.T @ (unit * gradient)
        decrement = float((along**2 / scale).sum())
        if decrement < 1e-16 * max(1.0, abs(float(value))) or decrement < 1e-12:
            # Below what the value can show; the step itself still gains half the digits.
            point = point + unit * (vectors @ (along / scale))
            break
        accepted = False
        for _ in range(12):
            trial = point + unit * (vectors @ (along / (scale + damping * scale.max())))
            trial_value = density.log_joint(trial)
            if bool(trial_value >= value - 1e-12 * abs(float(value))):
                point, value, damping, accepted = trial, trial_value, damping / 10 if damping > 1e-6 else 0.0, True
                break
            damping = max(10 * damping, 1e-4)
        if not accepted:
            break
    return gaussian_at(density, point, float(value))


def gaussian_at(density: Density, point: Tensor, height: float) -> Gaussian | None:
    """The Gaussian of the curvature at a mode ``(1, P)``; None where it is not definite or the point is no mode."""
    gradient, precision = curvature(density, point)
    if not bool(torch.isfinite(precision).all() & torch.isfinite(gradient).all()):
        return None
    unit = _units(precision)
    values, vectors = torch.linalg.eigh(unit[:, None] * precision * unit)
    if float(values[0]) <= FLAT * float(values[-1]):
        return None
    if float(((vectors.T @ (unit * gradient)) ** 2 / values).sum()) > 1e-4:
        return None
    root = unit[:, None] * vectors / values.sqrt()
    # QR of the root: its Cholesky factor without squaring the condition number.
    upper = torch.linalg.qr(root.T)[1]
    return Gaussian(point[0], (upper * upper.diagonal().sign()[:, None]).T.contiguous(), height)


def _units(precision: Tensor) -> Tensor:
    """Coordinate units in which the precision has a diagonal of 1: latents may be in any units."""
    diagonal = precision.diagonal().abs()
    usable = torch.isfinite(diagonal) & (diagonal > 1e-300)
    return torch.where(usable, diagonal, 1.0).rsqrt()


def curvature(density: Density, point: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient ``(P,)`` and negative Hessian ``(P, P)`` of the log joint at ``(1, P)``."""
    _, slope, hessian = density.likelihood_derivatives(point)
    _, prior_slope, prior_hessian = density.prior_derivatives(point)
    total = hessian[0] + prior_hessian[0]
    return slope[0] + prior_slope[0], -0.5 * (total + total.T)


def climb_many(density: Density, few: Density, start: Tensor) -> Gaussian | None:
    """Mode and curvature of many rows; None where there is no Gaussian fit.

    Args:
        density: All rows.
        few: Some of them, weighted to stand for all.
        start: The mode of those, ``(P,)``.
    """
    point = start[None]
    inverse = _inverse(curvature(few, point)[1])
    value, slope = density.log_joint_gradient(point)
    for _ in range(STEPS):
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


def _inverse(precision: Tensor) -> Tensor:
    """Inverse in units of the precision's diagonal, indefinite directions turned round."""
    unit = precision.diagonal().abs().clamp_min(1e-300).rsqrt()
    values, vectors = torch.linalg.eigh(unit[:, None] * precision * unit)
    root = unit[:, None] * vectors / values.abs().clamp_min(1e-10 * float(values.abs().max())).sqrt()
    inverse: Tensor = root @ root.T
    return inverse


def _renewed(inverse: Tensor, step: Tensor, change: Tensor) -> Tensor:
    """BFGS: the inverse that maps the change of the slope to the step; kept where the curvature is not positive."""
    along = change @ step
    if not bool(along > 0):
        return inverse
    cross = torch.outer(step, inverse @ change) / along
    square = (1 + change @ inverse @ change / along) * torch.outer(step, step) / along
    renewed: Tensor = inverse - cross - cross.T + square
    return renewed
