"""Pyro's own HMC on the problems of ``studies.bpinn``, timed: all tasks in one plain Pyro model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import HMC, MCMC
from torch import Tensor

from bayesdd.networks import jets, mlp
from bayesdd.task.program import running
from studies.bpinn.equations import DIFFUSION, K


def seconds_a_step(density: Any, tasks: Sequence[Any], net: Any, start: Tensor, step: float, steps: int) -> float:
    """Seconds of one leapfrog step of Pyro's HMC on the same density, a plain Pyro model of it.

    Raises:
        ArithmeticError: Pyro's density is another one.
    """
    model = partial(joint, tasks, net)
    sites = {name: start[at : at + width].reshape(shape) for name, (at, shape, width) in density.starts.items()}
    with running(), torch.random.fork_rng():
        trace = pyro.poutine.trace(pyro.poutine.condition(model, data=sites)).get_trace()
        apart = float(trace.log_prob_sum() - density.log_joint(start[None])[0])
        if abs(apart) > 1e-6 * abs(float(density.log_joint(start[None])[0])):
            raise ArithmeticError(f"the Pyro model's log density is {apart:g} nats off")
        torch.manual_seed(0)
        kernel = HMC(model, step_size=step, num_steps=steps, adapt_step_size=False, adapt_mass_matrix=False)
        run = MCMC(kernel, num_samples=4, warmup_steps=1, initial_params=sites, disable_progbar=True)
        clock = time.process_time()
        run.run()
        return (time.process_time() - clock) / (5 * steps)


def joint(tasks: Sequence[Any], net: Any) -> None:
    """All tasks in one Pyro model, as one would write it by hand; the equation is the first of them."""
    layers = mlp.sample(net)
    problem = tasks[0].model.keywords["_networks"].problem
    unknown = {name: pyro.sample(name, dist.Normal(*prior)) for name, prior in problem.unknown.items()}
    k = unknown.get("k", float(problem.constants.get("k", K)))
    for at, task in enumerate(tasks):
        x, y = task.data["x"][:, None], task.data["observed_0"]
        if at == 0:
            z, unit = mlp.own_coordinates(net, x)
            batched = [(weight[None], bias[None]) for weight, bias in layers]
            u, _, half = jets.series(batched, z, unit, ((0,), (1,), (2,)))[0, :, :, 0]
            mean = DIFFUSION * 2 * half + k * torch.tanh(u)
        else:
            mean = mlp.value(net, layers, x)
        with pyro.plate(f"rows_{at}", len(x)):
            pyro.sample(f"y_{at}", dist.Normal(mean, task.model.keywords["_noise"][0]), obs=y)
