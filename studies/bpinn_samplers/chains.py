"""Chains that grow until they agree: what a method may spend, and what it gave."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bayesdd.posterior.arviz import Diagnostics, function_diagnostics
from studies.bpinn.cell import PLAIN_STEPS, Setting

AGREED = 1.01
LOOK = 1.08  # times as many draws as at the last look at R-hat
HELD = 1.5  # times the seconds since chains agreed for good, at which they need no more


class Budget(NamedTuple):
    """What every method may spend.

    Attributes:
        seconds: Of the processor, adaptation and sampling of all chains together; compilation comes on top.
        warmup: Transitions of adaptation.
        least: Draws of each chain that are made in any case.
        steps: Leapfrog steps of a transition of plain HMC.
    """

    seconds: float
    warmup: int
    least: int = 40
    steps: int = PLAIN_STEPS


@dataclass(eq=False)
class Chains:
    """The function u along the chains of one method, and the seconds of the processor that they took.

    They end where R-hat of u has been at most 1.01 for the last third of the seconds, or with the budget.

    Attributes:
        compilation: Until the first step can be made, a recorded graph included.
        adaptation: In which step sizes and scales are adapted.
        sampling: For the draws so far; looking at them does not count.
        steps: Leapfrog steps of all chains together so far.
        reached: Seconds, adaptation included, from which on chains have agreed at every look; None: at the last they
            did not.
    """

    made: Setting
    budget: Budget
    compilation: float
    adaptation: float
    sampling: float = 0.0
    steps: float = 0.0
    reached: float | None = None
    _u: list[Tensor] = field(default_factory=list)
    _k: list[Tensor] = field(default_factory=list)
    _draws: int = 0
    _looked: int = 0
    _clock: float = 0.0

    def more(self) -> bool:
        """Whether draws are wanted; the clock of sampling then runs until :meth:`keep`."""
        spent = self.adaptation + self.sampling
        enough = spent >= self.budget.seconds or (self.reached is not None and spent >= HELD * self.reached)
        self._clock = time.process_time()
        return self._draws < self.budget.least or not enough

    def keep(self, points: Tensor, steps: float) -> None:
        """Takes in draws of the flat vector, ``(chains, draws, P)``, made by so many steps of all chains."""
        self.sampling += time.process_time() - self._clock
        self.steps += steps
        self._draws += points.shape[1]
        self._u.append(self.made.u(points))
        if (place := self.made.density.starts.get("k")) is not None:
            self._k.append(points[:, :, place[0]].clone())
        if self._draws >= max(LOOK * self._looked, 4):
            self._looked = self._draws
            agreed = float(diagnostics(self.u).rhat.max()) <= AGREED  # NaN where chains stand still
            self.reached = None if not agreed else self.reached or self.adaptation + self.sampling

    @property
    def u(self) -> Tensor:
        """The function at 101 points, ``(chains, draws, 101)``."""
        return torch.cat(self._u, 1)

    @property
    def k(self) -> Tensor | None:
        """The unknown constant, ``(chains, draws)``; None: the problem has none."""
        return torch.cat(self._k, 1) if self._k else None


def diagnostics(numbers: Tensor) -> Diagnostics:
    """R-hat and effective sample size; NaN, in silence, of chains that do not move, as at smoke size some do."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return function_diagnostics(numbers)
