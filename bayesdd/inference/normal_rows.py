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
from bayesdd.inference.observed_rows import observed, row_jacobian
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

    Attributes:
        rows: Their number.
        root: Square roots of their weights, ``(rows,)``.
        index: Where the task's latents stand among all.

    Raises:
        ValueError: A negative weight; at the first call, another distribution than a normal one, several outcomes a
            row, a masked or scaled observation.
    """

    def __init__(self, part: Part, device: torch.device) -> None:
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
        self._seen = Engine(_seen(part), task.backend)
        self._slopes = Engine(_slopes(part), task.backend)

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
        """Derivatives in the latents and in the row's noise, ``(S, rows, P of the task + 1)``; differentiable."""
        return self._slopes(at, {**self.columns, ROOT: self.root, UNIT: self._scale})


def _seen(part: Part) -> Callable[[Tensor, Columns], Tensor]:
    """Mean minus outcome and standard deviation of every row, ``(2, rows)``."""

    def single(flat: Tensor, rows: Columns) -> Tensor:
        count = len(next(iter(rows.values())))
        return torch.stack(_normal(part.task, observed(part.task, Feeder(part.task.program, flat), rows), count))

    return single


def _slopes(part: Part) -> Callable[[Tensor, Columns], Tensor]:
    """Derivatives of the constraints, ``(rows, P of the task + 1)``: in the latents, and in the row's own noise."""

    def read(seen: list[Message], row: Columns) -> tuple[Tensor, Tensor]:
        miss, scale = _normal(part.task, seen, 1)
        return (row[ROOT] * miss + scale * row[NOISE]).squeeze() / row[UNIT], scale.squeeze() / row[UNIT]

    by_row = row_jacobian(part.task, read, grad)

    def single(at: Tensor, rows: Columns) -> Tensor:
        slopes, scale = by_row(at[: part.task.dim], {**rows, NOISE: at[part.task.dim :]})
        return torch.cat([slopes, scale[:, None]], 1)

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
