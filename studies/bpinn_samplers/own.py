"""What samples with what is installed anyway: constrained HMC and Pyro's HMC, for so many seconds."""

from __future__ import annotations

import math
import shutil
import time
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro.infer import HMC
from torch import Tensor

from bayesdd.inference._constrained import _State
from bayesdd.inference.manifold import Lifted
from bayesdd.task.program import running
from studies.bpinn.cell import PLAIN_STEPS, Setting
from studies.bpinn.pyro import joint

WARMUP = 60  # of constrained HMC, as in studies.bpinn
State = dict[str, Tensor]


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


class Run(NamedTuple):
    """What a method gave.

    Attributes:
        draws: Of the flat vector, ``(chains, draws, P)``.
        steps: Leapfrog steps of all chains, for each draw in turn, ``(draws,)``.
        compilation: Seconds of the processor until the first step can be made, a recorded graph included.
        adaptation: Seconds of the processor in which step sizes and scales are adapted.
        sampling: Seconds of the processor for the draws.
    """

    draws: Tensor
    steps: Tensor
    compilation: float
    adaptation: float
    sampling: float


def constrained_hmc(made: Setting, budget: Budget) -> Run:
    """Constrained HMC of bayesdd: the transitions of :func:`bayesdd.inference.constrained`, ended by the clock.

    Compiled, as its rivals are, where there is a compiler; its seconds are those of compilation.
    """
    compiled = budget.seconds > 0 and any(map(shutil.which, ("g++", "clang++")))
    clock, generator = time.process_time(), torch.Generator().manual_seed(0)
    lifted = Lifted(made.density, made.start, compiled=compiled)
    state = _State(lifted, made.start, generator, 0.5 * math.pi, budget.steps)
    state.step()
    compilation, clock = time.process_time() - clock, time.process_time()
    for _ in range(min(WARMUP, budget.warmup)):
        state.step()
        state.steps.update(state.accepted)
    state.steps.end()
    adaptation, clock = time.process_time() - clock, time.process_time()
    drawn: list[Tensor] = []
    steps: list[Tensor] = []
    while len(drawn) < budget.least or time.process_time() - clock < budget.seconds - adaptation:
        steps.append(state.step()["n_steps"].double().sum())
        drawn.append(lifted.points(state.place.q))
    return Run(torch.stack(drawn, 1), torch.stack(steps), compilation, adaptation, time.process_time() - clock)


def pyro_hmc(made: Setting, budget: Budget) -> Run:
    """Pyro's HMC, which adapts a step size and a diagonal scale for each chain; chains take turns.

    A quarter of the seconds, at most, is adaptation: Pyro makes few transitions in all of them.
    """
    starts = made.density.starts  # in their order in the flat vector
    with running(), torch.random.fork_rng():
        torch.manual_seed(0)
        clock = time.process_time()
        kernels, states = _kernels(made, budget, 1)
        _turn(kernels, states, budget.steps)
        cost = time.process_time() - clock
        warmup = min(budget.warmup, max(budget.least, int(budget.seconds / 4 / cost)))
        clock = time.process_time()
        kernels, states = _kernels(made, budget, warmup)
        compilation, clock = time.process_time() - clock, time.process_time()
        for _ in range(warmup):
            states = _turn(kernels, states, budget.steps)
        adaptation, clock = time.process_time() - clock, time.process_time()
        drawn: list[Tensor] = []
        while len(drawn) < budget.least or time.process_time() - clock < budget.seconds - adaptation:
            states = _turn(kernels, states, budget.steps)
            drawn.append(torch.stack([torch.cat([state[name].flatten() for name in starts]) for state in states]))
        sampling = time.process_time() - clock
    steps = torch.full((len(drawn),), float(len(kernels) * budget.steps), dtype=torch.float64)
    return Run(torch.stack(drawn, 1), steps, compilation, adaptation, sampling)


def _kernels(made: Setting, budget: Budget, warmup: int) -> tuple[list[Any], list[State]]:
    """A kernel for each chain and where it starts."""
    model, kernels, states = partial(joint, made.tasks, made.net), [], []
    for start in made.start:
        places = made.density.starts.items()
        at = {name: start[first : first + width].reshape(shape) for name, (first, shape, width) in places}
        kernel = HMC(model, step_size=0.01, num_steps=budget.steps)
        kernel.initial_params = at
        kernel.setup(warmup)
        kernels.append(kernel)
        states.append(at)
    return kernels, states


def _turn(kernels: list[Any], states: list[State], steps: int) -> list[State]:
    """A transition of every chain of so many leapfrog steps, whatever their size has become."""
    found = []
    for kernel, state in zip(kernels, states, strict=True):
        kernel.trajectory_length = (steps + 0.5) * kernel.step_size
        found.append(kernel.sample(state))
    return found
