"""Modes of both posteriors, and what one of them costs where the other has none.

With g the log-ratio less the log-ratio of the evidences, ``KL(full, distilled) = E_full[g + exp(-g) - 1]``: no term is
negative. A mode of mass m of the full posterior therefore adds m (g + exp(-g) - 1), and likewise, with the sign of g
turned, one of the distilled posterior to KL(distilled, full); a mode that the other lacks costs -log(1 - m) at least.
Which mass may be overlooked thus follows from the tolerance and from the log-ratio there. Modes that mirror each other
(labels, signs) have equal log-ratios and cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.inference.mode import climb, newton, prior_draws
from bayesdd.inference.searches import climb_together
from bayesdd.numerics.gaussian import Gaussian, marginal
from bayesdd.target.target import LARGE, Target

STARTS = 24  # searches of the first round: half of them from prior draws, half from a box around the origin
CELLS = 2**23  # of the inverse Hessians of one round, 64 MiB: with many latents fewer searches are made
ROUNDS = 5  # most rounds, each twice as large as the one before; the first that finds no new mode is the last
MOST = 64  # modes that are followed
UNKNOWN = 6  # ends that are followed, from the highest to the lowest, while none has led to a mode
ROWS = 256  # of each task on which searches begin
SAME = 0.01  # squared Mahalanobis distance within which two searches ended in the same mode
EQUAL = 1e-6  # nats for each unit of 1 + |value|: log joints and log-ratios of mirrored modes agree within it
DRAWS = 16  # of a mode's Gaussian, at which its log-ratio is looked at
FAR = 3.0  # nats of log-ratio beyond the usual: the other posterior has next to no mass there

LogRatio = Callable[[Tensor], Tensor]


class Found(NamedTuple):
    """Distinct modes of a posterior, and how many searches were made."""

    modes: list[Gaussian]
    searches: int

    def log_evidence_outside(self, points: Tensor) -> float:
        """Laplace's estimate of the evidence under the modes in whose bulk no point ``(S, P)`` lies, nats."""
        masses = [mode.log_mass for mode in self.modes if not bool(inside(mode, points).any())]
        return float(torch.tensor([*masses, -math.inf], dtype=torch.float64).logsumexp(0))


def modes_of_rows(density: Density, hints: Tensor, seed: int) -> Found:
    """All modes of the posterior of a few rows, mirrored ones too; ``hints`` ``(K, P)`` are further starting points."""
    return _search(density, density, hints, None, seed, None, None)


def more_modes(density: Density, found: Found, starts: Tensor) -> Found:
    """The modes found, at least one, and those that further starting points ``(K, P)`` lead to."""
    modes = list(found.modes)
    ends = climb_together(density, starts, modes[0].factor.norm(dim=1), partial(_arrived, found.modes))
    for end in _distinct(ends, ends[:0], modes[0], 1.0):
        mode = None if len(modes) >= MOST or _known(modes, end) else _near(density, end)
        if mode is not None and not _known(modes, mode.mean):
            modes.append(mode)
    return Found(sorted(modes, key=lambda mode: -mode.log_mass), found.searches + len(starts))


def modes_of_target(target: Target, hints: Tensor, known: Gaussian | None, seed: int, log_ratio: LogRatio) -> Found:
    """Modes of the full posterior, mirrored ones left out: searches begin on few rows and end on all.

    Args:
        target: The target.
        hints: Further starting points ``(K, P)``.
        known: Laplace fit of the full posterior, if at hand.
        seed: Seed of the starting points.
        log_ratio: The log-ratio at draws of the shared latents, nats.
    """
    few = target.thinned(ROWS)
    finish = target.mode_near if target.joint.size >= LARGE else None
    found = _search(target.joint, few, hints, known, seed, lambda at: log_ratio(at[:, target.index]), finish)
    target.joint.count(few)
    return found


def cost(
    found: Found, index: Tensor | None, log_ratio: LogRatio, usual: float, sign: float, seed: int
) -> tuple[float, float]:
    """Nats that the costliest mode that the other posterior lacks adds to the divergence from its own, and their mass.

    Args:
        found: Modes.
        index: Coordinates of the shared latents; None: all.
        log_ratio: The log-ratio at draws of the shared latents, nats.
        usual: Log of full over distilled evidence, nats.
        sign: 1 for modes of the full posterior, -1 for those of the distilled one.
        seed: Seed of the draws.
    """
    if len(found.modes) < 2:
        return 0.0, 0.0
    shared = found.modes if index is None else [marginal(mode, index) for mode in found.modes]
    mass = torch.softmax(torch.tensor([mode.log_mass for mode in found.modes], dtype=torch.float64), 0)
    generator = torch.Generator().manual_seed(seed)
    points = torch.cat([mode.draw(DRAWS, generator) for mode in shared])
    gap = sign * (log_ratio(points).reshape(len(shared), DRAWS).median(1).values.cpu() - usual)
    costs = torch.maximum(mass * excess(gap), -torch.log1p(-mass.clamp_max(1 - 1e-12)))
    lacking = gap > FAR
    return float(torch.where(lacking, costs, 0.0).max()), float(torch.where(lacking, mass, 0.0).sum())


def excess(gap: Tensor) -> Tensor:
    """``g + exp(-g) - 1``, the integrand of a KL divergence: 0 at 0, never negative; large at NaN.

    Gaps below -2 count as -2: the other posterior's excess is the other divergence's to say.
    """
    gap = torch.nan_to_num(gap, nan=1e12, posinf=1e12).clamp(-2.0, 1e12)
    return gap + torch.expm1(-gap)


def _search(
    density: Density,
    few: Density,
    hints: Tensor,
    known: Gaussian | None,
    seed: int,
    log_ratio: LogRatio | None,
    finish: Callable[[Tensor], Gaussian | None] | None,
) -> Found:
    """Distinct modes from scattered starts; with ``log_ratio`` mirrored ones are left out.

    Mirrored are ends with the log joint and the log-ratio of an earlier one.
    """

    def whole(low: Gaussian | None, end: Tensor) -> Gaussian | None:
        """The mode on all rows that a mode of the few rows, or where there is none an end, leads to."""
        if few is density:
            return low
        begin = end if low is None else low.mean
        return finish(begin) if finish else _near(density, begin)

    starts = _starts(few, _count(few, 0), seed)
    # A mode of the few rows that is known at once: searches that arrive there end early.
    begin = known.mean if known is not None else hints[-1] if len(hints) else starts[0]
    first = _near(few, begin)
    near = [] if first is None else [first]
    known = known or whole(first, begin)
    found = [] if known is None else [known]
    ends = torch.zeros(0, density.dim, dtype=torch.float64, device=density.device)
    marks = torch.zeros(0, 2, dtype=torch.float64, device=density.device)
    searches = 0
    for turn in range(ROUNDS):
        if turn:
            starts = _starts(few, _count(few, turn), seed + 7919 * turn)
        metric = found[0] if found else None
        unit = starts.std(0).clamp_min(1e-6) if metric is None else metric.factor.norm(dim=1)
        if not turn:
            starts = torch.cat([hints, starts])
        reached = climb_together(few, starts, unit, partial(_arrived, near))
        searches += len(starts)
        new = _distinct(reached, ends, metric, few.size / density.size)
        here = few.log_joint(new) if len(new) else new.new_zeros(0)
        order = here.argsort(descending=True)[: int(torch.isfinite(here).sum())]
        if not found:
            order = order[torch.linspace(0, len(order) - 1, min(UNKNOWN, len(order))).long().to(order.device)]
        new, here = new[order], here[order]
        ratio = torch.zeros_like(here) if log_ratio is None or not len(new) else log_ratio(new)
        fresh = 0
        for end, mark in zip(new, torch.stack([here, ratio], 1), strict=True):
            close = (marks - mark).abs() < EQUAL * (1 + mark.abs())
            mirrored = log_ratio is not None and bool(close.all(1).any())
            ends, marks = torch.cat([ends, end[None]]), torch.cat([marks, mark[None]])
            if mirrored or len(found) >= MOST or _known(near, end):
                continue
            low = _near(few, end)
            if low is not None and _known(near, low.mean):
                continue
            if low is not None:
                near.append(low)
            mode = whole(low, end)
            if mode is not None and not _known(found, mode.mean):
                found.append(mode)
                fresh += 1
        if not fresh and (turn or not found):  # a density with kinks has no mode that a search could end in
            break
    return Found(sorted(found, key=lambda mode: -mode.log_mass), searches)


def _count(density: Density, turn: int) -> int:
    """Searches of a round; where each costs a pass of its own, rounds do not grow."""
    grow = all(part.task.backend != "loop" for part in density.parts)
    return max(2, min(STARTS * 2**turn if grow else STARTS, CELLS // density.dim**2))


def _near(density: Density, point: Tensor) -> Gaussian | None:
    """The mode that a point ``(P,)`` leads to."""
    return newton(density, point) or newton(density, climb(density, point, 100))


def _arrived(modes: list[Gaussian], points: Tensor, values: Tensor) -> Tensor:
    """Whether points ``(K, P)`` with log joints ``(K,)`` are in a mode's bulk, and as high as its bulk is, ``(K,)``."""
    arrived = torch.zeros_like(values, dtype=torch.bool)
    for mode in modes:
        arrived |= inside(mode, points) & (values > mode.height - 0.5 * _bulk(len(mode.mean)))
    return arrived


def _known(modes: list[Gaussian], point: Tensor) -> bool:
    return any(bool(inside(mode, point)) for mode in modes)


def _distinct(points: Tensor, ends: Tensor, metric: Gaussian | None, share: float) -> Tensor:
    """Points ``(K, P)`` that differ from each other and from earlier ends."""
    points = points[torch.isfinite(points).all(1)]
    every = torch.cat([ends, points])
    if metric is None:
        near = (points[:, None] - every).abs().amax(2) < 1e-3 * (1 + points.abs().amax(1))[:, None]
    else:
        # In units of the posterior of few rows, which is wider.
        white = metric.whitened(every)
        apart = torch.cdist(white[len(ends) :], white, compute_mode="donot_use_mm_for_euclid_dist")
        near = apart.square() * share < SAME
    beside, known = near.cpu().numpy(), list(range(len(ends)))
    for place in range(len(points)):
        if not beside[place, known].any():
            known.append(len(ends) + place)
    return every[known[len(ends) :]]


def _starts(density: Density, count: int, seed: int) -> Tensor:
    """Starting points ``(count, P)``: half of them draws of the prior, half uniform in a box around the origin."""
    generator = torch.Generator().manual_seed(seed)
    box = 4 * torch.rand(count - count // 2, density.dim, generator=generator, dtype=torch.float64) - 2
    return torch.cat([prior_draws(density, count // 2, seed + 1), box.to(density.device)])


def inside(mode: Gaussian, points: Tensor) -> Tensor:
    """Whether points ``(..., P)`` lie in a mode's bulk, ``(...)``."""
    return mode.distance(points) < _bulk(len(mode.mean))


def _bulk(dim: int) -> float:
    """Squared distance from the mean, in sds, of next to all draws of a normal."""
    return dim + 6 * math.sqrt(2 * dim)
