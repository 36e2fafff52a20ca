"""What samples with what is installed anyway: constrained HMC and Pyro's HMC, for so many seconds."""

from __future__ import annotations

import math
import shutil
import time
from functools import partial
from typing import Any

import torch
from pyro.infer import HMC
from torch import Tensor

from bayesdd.inference._constrained import _State
from bayesdd.inference.manifold import Lifted
from bayesdd.task.program import running
from studies.bpinn.cell import Setting
from studies.bpinn.pyro import joint
from studies.bpinn_samplers.chains import Budget, Chains

WARMUP = 60  # of constrained HMC, as in studies.bpinn
State = dict[str, Tensor]


def constrained_hmc(made: Setting, budget: Budget) -> Chains:
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
    found = Chains(made, budget, compilation, time.process_time() - clock)
    while found.more():
        steps = float(state.step()["n_steps"].sum())
        found.keep(lifted.points(state.place.q)[:, None], steps)
    return found


def pyro_hmc(made: Setting, budget: Budget) -> Chains:
    """Pyro's HMC, compiled, which adapts a step size and a diagonal scale for each chain; chains take turns.

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
        found = Chains(made, budget, compilation, time.process_time() - clock)
        while found.more():
            states = _turn(kernels, states, budget.steps)
            points = torch.stack([torch.cat([state[name].flatten() for name in starts]) for state in states])
            found.keep(points[:, None], float(len(kernels) * budget.steps))
    return found


def _kernels(made: Setting, budget: Budget, warmup: int) -> tuple[list[Any], list[State]]:
    """A kernel for each chain and where it starts."""
    model, kernels, states = partial(joint, made.tasks, made.net), [], []
    for start in made.start:
        places = made.density.starts.items()
        at = {name: start[first : first + width].reshape(shape) for name, (first, shape, width) in places}
        kernel = HMC(model, step_size=0.01, num_steps=budget.steps, jit_compile=True, ignore_jit_warnings=True)
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
