r"""Rows that a normal distribution observes, as constraints on latents and the rows' own noise.

.. math:: c_n(\theta, \epsilon_n) = \frac{\sqrt{\omega_n}\,(m_n(\theta) - y_n) + \sigma_n(\theta)\,\epsilon_n}{s_n}

Mean m and scale sigma are those of the one observed site of a plain Pyro model; s is a fixed unit, the noise at the
points of ``measure``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.func import grad

from bayesdd.data.columns import Columns
from bayesdd.density.passes import Part
from bayesdd.inference.observed_rows import Slopes, observed, row_slopes, sites_of
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.engine import Engine
from bayesdd.task.program import Feeder, Message, base
from bayesdd.task.task import Task

# Beside the model's own columns: the row's noise, the root of its weight, the unit of its constraint.
NOISE, ROOT, UNIT = "row's noise", "root of the row's weight", "unit of the row's constraint"


class NormalRows:
    """The rows of one task as constraints; those of weight zero are left out.

    Args:
        part: The task, its rows and their weights.
        device: Where to compute.
        compiled: Whether to compile what is asked again and again (:class:`bayesdd.task.engine.Engine`).

    Attributes:
        rows: Their number.
        root: Square roots of their weights, ``(rows,)``.
        index: Where the task's latents stand among all.

    Raises:
        ValueError: A negative weight; at the first call, another distribution than a normal one, several outcomes a
            row, a masked or scaled observation.
    """

    def __init__(self, part: Part, device: torch.device, *, compiled: bool = False) -> None:
        task = part.task
        (block,) = part.rows.blocks(0, part.rows.size, part.rows.size, pin=False)
        columns, weight = part.split(block, 0)
        if weight is None:
            weight = torch.ones(part.rows.size, dtype=torch.float64)
        if not bool((weight >= 0).all()):
            raise Refusal(f"constrained() needs weights that are not negative, got {float(weight.min()):.3g}.")
        self.columns = {name: column[weight.cpu() > 0].to(device) for name, column in columns.items()}
        self.root = weight[weight > 0].sqrt().to(device)
        self.rows, self.dim, self.index = len(self.root), task.dim, part.place
        self._scale = torch.ones_like(self.root)
        self._seen = Engine(_seen(part), task.backend, compiled=compiled)
        by_site = _by_site(task)
        self._slopes = Engine(_slopes(task, by_site), task.backend, compiled=compiled)
        self._turning = Engine(_turning(task, by_site), task.backend, compiled=compiled)

    def measure(self, points: Tensor) -> None:
        """Sets the rows' fixed scales to their noise at points."""
        self._scale = self._seen(points[:, self.index], self.columns)[:, 1].log().mean(0).exp()

    def noise(self, points: Tensor) -> Tensor:
        """The noise of the outcomes, in units of the weighted rows' standard deviations, ``(S, rows)``."""
        seen = self._seen(points[:, self.index], self.columns)
        return -seen[:, 0] * self.root / seen[:, 1]

    def constraints(self, at: Tensor) -> Tensor:
        """The constraints at the task's latents and noise ``(S, P of the task + rows)``: shape ``(S, rows)``."""
        seen = self._seen(at[:, : self.dim], self.columns)
        return (seen[:, 0] * self.root + seen[:, 1] * at[:, self.dim :]) / self._scale

    def slopes(self, at: Tensor) -> Tensor:
        """Derivatives in the latents and in the row's own noise, ``(S, rows, P of the task + 1)``."""
        with torch.no_grad():
            return self._slopes(at, self._all)

    def turning(self, at: Tensor, along: Tensor, noise: Tensor) -> Tensor:
        """Gradient of the sum of all slopes times numbers, ``(S, P of the task + rows)``.

        Recorded with its backward pass, in which no slopes are made.

        Args:
            at: Latents and noise.
            along: What slopes in the latents are multiplied by, ``(S, rows, P of the task)``.
            noise: What those in the noise are multiplied by, ``(S, rows)``.
        """
        with torch.no_grad():
            return self._turning(torch.cat([at, noise, along.flatten(1)], 1), self._all)

    @property
    def _all(self) -> Columns:
        return {**self.columns, ROOT: self.root, UNIT: self._scale}


def _seen(part: Part) -> Callable[[Tensor, Columns], Tensor]:
    """Mean minus outcome and standard deviation of every row, ``(2, rows)``."""

    def single(flat: Tensor, rows: Columns) -> Tensor:
        count = len(next(iter(rows.values())))
        return torch.stack(_normal(part.task, observed(part.task, Feeder(part.task.program, flat), rows), count))

    return single


def _by_site(task: Task) -> Slopes:
    """Derivatives of the constraints of one draw, site by site, and in the row's own noise, ``(rows,)``."""

    def read(seen: list[Message], row: Columns) -> tuple[Tensor, Tensor]:
        miss, scale = _normal(task, seen, 1)
        return (row[ROOT] * miss + scale * row[NOISE]).squeeze() / row[UNIT], scale.squeeze() / row[UNIT]

    return row_slopes(task, read, grad)


def _slopes(task: Task, by_site: Slopes) -> Callable[[Tensor, Columns], Tensor]:
    """All of them beside one another, ``(rows, P of the task + 1)``, at latents and noise."""

    def single(at: Tensor, rows: Columns) -> Tensor:
        slopes, scale = by_site(sites_of(task, at), {**rows, NOISE: at[task.dim :]})
        return torch.cat([*(slopes[site.name] for site in task.structure.sites), scale[:, None]], 1)

    return single


def _turning(task: Task, by_site: Slopes) -> Callable[[Tensor, Columns], Tensor]:
    """The gradient, at latents and noise, of the slopes times numbers behind these: see ``NormalRows.turning``."""

    def single(flat: Tensor, rows: Columns) -> Tensor:
        count = len(rows[ROOT])
        _, noise, of_noise, along = flat.split([task.dim, count, count, count * task.dim])
        of_sites = sites_of(task, along.reshape(count, task.dim))

        def total(sites: Columns, noise: Tensor) -> Tensor:
            slopes, scale = by_site(sites, {**rows, NOISE: noise})
            parts = [(slopes[name] * one).sum() for name, one in of_sites.items()]
            return torch.stack([*parts, (scale * of_noise).sum()]).sum()

        sites, own = grad(total, argnums=(0, 1))(sites_of(task, flat), noise)
        return torch.cat([*(sites[site.name] for site in task.structure.sites), own])

    return single


def _normal(task: Task, seen: list[Message], count: int) -> tuple[Tensor, Tensor]:
    """Mean minus outcome and standard deviation of rows, ``(count,)`` each, off their one observed site."""
    plain = all(type(m["fn"]) is dist.Normal and m["mask"] is None and _is_one(m["scale"]) for m in seen)
    if len(seen) != 1 or not plain or seen[0]["fn"].loc.numel() not in (1, count):
        kinds = [(m["name"], type(base(m["fn"])).__name__) for m in seen]
        raise Refusal(
            f"constrained() needs one observed site y ~ Normal(mean, noise) with one number a row, neither masked nor "
            f"scaled, but {task.name} observes {kinds}: use bayesdd.inference.hmc."
        )
    fn, outcome = seen[0]["fn"], torch.as_tensor(seen[0]["value"])
    mean, scale = (value.reshape(-1).expand(count) for value in (fn.loc - outcome, fn.scale))
    return mean, scale


def _is_one(scale: Any) -> bool:
    return not isinstance(scale, Tensor) and scale == 1
