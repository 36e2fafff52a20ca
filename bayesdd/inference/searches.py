"""Many searches for modes at once: quasi-Newton steps of all starting points together.

Each point keeps its own inverse Hessian (BFGS); one batched gradient serves all. Steps are halved, the first one cut to
a tenth, until the log joint rises enough; a point stays where no step raises it.

Cost: about one gradient of all points a step.

Source: Nocedal & Wright, "Numerical optimization", 2006, chapter 6.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.density.density import Density

STEPS = 400  # most steps of a search: about 15 where columns are scaled, hundreds where they are correlated and are not
RISE = 1e-4  # share of the rise promised by the slope that a step must bring (Armijo)
ENDED = 1e-6  # nats that the next step promises, below which a search has ended
HALVINGS = 12
SHORTEST = 1e-12  # of the first step, whose units may be those of a prior that is much wider than the posterior
LONGEST = 3.0  # of the first step, in the units given; doubled where steps of that length succeed


Arrived = Callable[[Tensor, Tensor], Tensor]  # points (K, P) and their log joints (K,) -> whether they may stop, (K,)


def climb_together(density: Density, starts: Tensor, unit: Tensor, arrived: Arrived | None = None) -> Tensor:
    """Ends of searches for modes, converged or not.

    Args:
        density: The posterior.
        starts: Starting points ``(K, P)``.
        unit: Scale of a step in each coordinate, such as posterior sds, ``(P,)``.
        arrived: Tells which points have come to a known mode: their searches end there.

    Returns:
        Shape ``(K, P)``.
    """
    count, dim = starts.shape
    point, size, longest = starts, starts.new_ones(count), starts.new_full((count,), LONGEST)
    value, slope = _at(density, point)
    inverse = (unit**2).diag().expand(count, dim, dim).clone()
    first = torch.ones(count, dtype=torch.bool, device=starts.device)
    for _ in range(STEPS):
        step = _limited((inverse @ slope[..., None])[..., 0], unit, longest)
        promised = (step * slope).sum(1)
        going = torch.isfinite(value) & (promised > ENDED) & (size > torch.where(first, SHORTEST, 2.0**-HALVINGS))
        if arrived is not None:
            going &= ~arrived(point, value)
        if not bool(going.any()):
            break
        trial = torch.where(going[:, None], point + size[:, None] * step, point)
        found, tilt = _at(density, trial)
        better = going & (found >= value + RISE * size * promised)
        change, move = slope - tilt, trial - point
        full = (move / unit).abs().amax(1) > 0.9 * longest
        longest = torch.where(better & full, 2 * longest, longest)
        inverse = torch.where(better[:, None, None], _renewed(inverse, move, change, first, unit), inverse)
        point = torch.where(better[:, None], trial, point)
        value = torch.where(better, found, value)
        slope = torch.where(better[:, None], tilt, slope)
        first = first & ~better
        size = torch.where(better, 1.0, torch.where(going, torch.where(first, 0.1, 0.5) * size, size))
    return point


def _at(density: Density, points: Tensor) -> tuple[Tensor, Tensor]:
    value, slope = density.log_joint_gradient(points)
    good = torch.isfinite(value) & torch.isfinite(slope).all(1)
    return torch.where(good, value, -torch.inf), torch.where(good[:, None], slope, 0.0)


def _limited(step: Tensor, unit: Tensor, longest: Tensor) -> Tensor:
    """Steps ``(K, P)`` shortened so that no coordinate moves by more than the longest ``(K,)``."""
    length = (step / unit).abs().amax(1).clamp_min(1e-300)
    return step * (longest / length).clamp_max(1.0)[:, None]


def _renewed(inverse: Tensor, move: Tensor, change: Tensor, first: Tensor, unit: Tensor) -> Tensor:
    """BFGS for each point; the inverse as it was where the curvature along the step is not positive."""
    along = (change * move).sum(1)
    usable = along > 1e-12 * change.norm(dim=1) * move.norm(dim=1)
    safe = torch.where(usable, along, 1.0)
    # Before the first update the units are brought to the curvature that the first step has met.
    scale = safe / ((unit * change) ** 2).sum(1).clamp_min(1e-300)
    inverse = torch.where((first & usable)[:, None, None], scale[:, None, None] * inverse, inverse)
    product = (inverse @ change[..., None])[..., 0]
    cross = move[:, :, None] * product[:, None, :] / safe[:, None, None]
    factor = (1 + (change * product).sum(1) / safe) / safe
    found = inverse - cross - cross.transpose(1, 2) + factor[:, None, None] * move[:, :, None] * move[:, None, :]
    return torch.where(usable[:, None, None], found, inverse)
