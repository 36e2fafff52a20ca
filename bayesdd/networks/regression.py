"""Regression students: y ~ N(m(x; theta), noise^2), mean and Jacobian of the mean at many rows and many draws.

The mean is that of the one observed site of a plain Pyro model, so that a network is written as a statistician would
write it and still fitted by Gauss-Newton steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from bayesdd.data.columns import Columns
from bayesdd.inference.observed_rows import observed, row_jacobian
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.engine import UNRECORDED, Engine
from bayesdd.task.program import Feeder, Message, evaluate, running
from bayesdd.task.task import Task

LEAST_PRECISION = 1e-8  # of a latent a priori: where a prior is not log-concave, steps leave it out


class Regression:
    """A task seen as a regression with known noise.

    Args:
        task: Its model observes one column ``(N,)`` by a Normal site whose scale is a known number.
        asked: The function that needs it, for messages.

    Attributes:
        outcome: The observed column.
        inputs: The other columns.
        noise: The site's scale, in the units of the outcome.

    Raises:
        ValueError: The model observes anything else, or its noise is a latent or differs between rows.
    """

    def __init__(self, task: Task, asked: str) -> None:
        sites = task.structure.observed
        kinds = [(o.distribution, o.column) for o in sites]
        if len(sites) != 1 or sites[0].distribution != "Normal" or not sites[0].column:
            raise Refusal(
                f"{asked} needs a student with one observed site y ~ Normal(mean, noise) of one column, but "
                f"{task.name} observes {kinds}: it is for regressions."
            )
        self.task, self.outcome = task, sites[0].column
        if task.data[self.outcome].dim() != 1 or task.backend == "loop":
            raise Refusal(
                f"{asked} needs one outcome a row and a model that torch.func.vmap can run, but {task.name} observes "
                f"{self.outcome!r} of shape {tuple(task.data[self.outcome].shape)} (backend {task.backend})."
            )
        self.inputs = [name for name in task.data if name != self.outcome]
        self._mean = Engine(lambda flat, rows: self._site(flat, rows).mean, task.backend, UNRECORDED)
        slopes = row_jacobian(task, _mean, grad)
        self._slopes = Engine(lambda flat, rows: _joined(*slopes(flat, rows)), task.backend, UNRECORDED)
        self._prior = Engine(lambda flat, row: self._prior_of(flat, row), task.backend, UNRECORDED)
        self.noise = self._known_noise(asked)
        self._normal: tuple[Tensor, Tensor, Tensor] | None = None
        self._normal = self._normal_prior()

    def mean(self, draws: Tensor, rows: Columns) -> Tensor:
        """Means ``(S, K)`` at draws ``(S, P)`` and rows (the outcome may be left out); differentiable in both."""
        return self._mean(draws, self._filled(rows))

    def jacobian(self, draws: Tensor, rows: Columns) -> tuple[Tensor, Tensor]:
        """Means ``(S, K)`` and their derivatives in the latents ``(S, K, P)``; differentiable in both."""
        found = self._slopes(draws, self._filled(rows))
        return found[..., 0], found[..., 1:]

    def prior(self, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log prior ``(S,)``, its gradient ``(S, P)`` and minus its curvature ``(S, P)``.

        The curvature is the Hessian's row sums: its diagonal where latents are independent a priori. For independent
        normal priors, which are recognised, the formulas are written out: 60 times as fast.
        """
        if self._normal is not None:
            height, centre, precision = self._normal
            off = draws - centre
            slope = -precision * off
            return height + 0.5 * (slope * off).sum(1), slope, precision.expand_as(draws)
        row = {name: column[:1] for name, column in self.task.data.items()}
        found = self._prior(draws, row)
        dim = draws.shape[1]
        return found[:, 0], found[:, 1 : dim + 1], found[:, dim + 1 :].clamp_min(LEAST_PRECISION)

    def _filled(self, rows: Columns) -> Columns:
        """The inputs, and an outcome of zeros, on which the mean does not depend."""
        kept = {name: rows[name] for name in self.inputs}
        count = len(next(iter(kept.values())))
        return {**kept, self.outcome: torch.zeros(count, dtype=torch.float64)}

    def _site(self, flat: Tensor, rows: Columns) -> Any:
        return observed(self.task, Feeder(self.task.program, flat), rows)[0]["fn"]

    def _prior_of(self, flat: Tensor, row: Columns) -> Tensor:
        def log_prior(at: Tensor) -> Tensor:
            return evaluate(self.task.program, at, row)[0].sum()

        slope: Callable[[Tensor], Tensor] = grad(log_prior)
        # Not jvp, whose first use makes torch warn of its own code.
        row_sums: Callable[[Tensor], Tensor] = grad(lambda at: slope(at).sum())
        return torch.cat([log_prior(flat)[None], slope(flat), -row_sums(flat)])

    def _normal_prior(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Height at the centre, centre and precisions of a prior of independent normals; None if it is another."""
        draws = self.task.prior_draws(3, 0)
        with torch.no_grad():
            value, slope, precision = self.prior(draws)
        if not torch.allclose(precision, precision[:1].expand_as(precision)) or not bool((precision > 0).all()):
            return None
        centre = draws + slope / precision
        height = value + 0.5 * (precision * (draws - centre) ** 2).sum(1)
        if not torch.allclose(centre, centre[:1].expand_as(centre)) or not torch.allclose(height, height[:1].expand(3)):
            return None
        return height[0], centre[0], precision[0]

    def _known_noise(self, asked: str) -> float:
        few = {name: column[:8] for name, column in self.task.data.items()}
        with running(), torch.no_grad():
            sds = [self._site(draw, few).stddev.expand(len(few[self.outcome])) for draw in self.task.prior_draws(2, 0)]
        least, most = float(torch.stack(sds).min()), float(torch.stack(sds).max())
        if not 0 < least == most:
            raise Refusal(
                f"{asked} needs a student with known noise, but the scale of site "
                f"{self.task.structure.observed[0].name!r} of {self.task.name} varies with latents or rows "
                f"({least:.3g} to {most:.3g}): give it as a number; the weights of the rows carry their precision."
            )
        return least


def _mean(seen: list[Message], row: Columns) -> tuple[Tensor, Tensor]:
    mean: Tensor = seen[0]["fn"].mean.squeeze()
    return mean, mean


def _joined(slopes: Tensor, means: Tensor) -> Tensor:
    return torch.cat([means[:, None], slopes], 1)
