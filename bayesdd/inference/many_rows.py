r"""The mode of many rows, near that of few: quasi-Newton steps from the few rows' curvature, then one Hessian of all.

With n of N rows the curvature is right to about :math:`\sqrt{P/n}`, so that every step leaves that share of the
distance; the inverse is renewed by the BFGS formula as the steps go on. A step of Newton's method takes P + 1 times the
passes.

Source: Nocedal & Wright, "Numerical optimization", 2006, chapter 6.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.density import Density
from bayesdd.inference.laplace import Gaussian, curvature, gaussian_at, newton

STEPS = 30
CLOSE = 1e-10  # squared distance from the mode in posterior sds: it moves a KL by half of that
HALVINGS = 10


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
