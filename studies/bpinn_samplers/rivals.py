"""BlackJAX on the problems of ``studies.bpinn``: the same log density in JAX, its NUTS and its HMC.

The only file that imports JAX and BlackJAX, inside functions: without the extra ``bench`` it is not called. The density
carries the network's first and second derivatives along with its value, which is the cheapest way there is.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from studies.bpinn.cell import Setting
from studies.bpinn.equations import DIFFUSION
from studies.bpinn_samplers.chains import Budget, Chains

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
NUTS_WARMUP = 1.25  # transitions for every second: its trajectories have up to 1,023 steps
BLOCK = 20  # transitions between looks at the clock
CHECKED, CLOSE = 8, 1e-10  # weights at which both log densities are compared, and how far they may differ, relatively


def log_density(made: Setting) -> Callable[[Any], Any]:
    """The setting's log joint density of one flat vector ``(P,)``, in JAX, with every constant.

    Raises:
        ArithmeticError: It is another one than bayesdd's.
    """
    jax = _jax()
    function = _log_density(made)
    some = torch.randn(CHECKED, made.density.dim, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    points = torch.cat([some, made.start])
    theirs = np.asarray(jax.jit(jax.vmap(function))(points.numpy()))
    ours = made.density.log_joint(points).numpy()
    apart = float(np.max(np.abs(theirs - ours) / np.abs(ours)))
    if not apart <= CLOSE:
        raise ArithmeticError(f"the log density in JAX differs from bayesdd's by {apart:g} of its size")
    return function


def _log_density(made: Setting) -> Callable[[Any], Any]:
    import jax.numpy as jnp

    net, place = made.net, made.density.starts.get("k")
    problem = made.tasks[0].model.keywords["_networks"].problem
    given = [
        (task.data["x"].numpy()[:, None], task.data["observed_0"].numpy(), task.model.keywords["_noise"][0])
        for task in made.tasks
    ]
    layers = list(zip(net.widths, net.factors, strict=True))

    def series(flat: Any, x: Any) -> tuple[Any, Any]:
        """The network and its second derivative at points ``(N, 1)``."""
        h, slope, bend = x / net.radius[0], jnp.ones_like(x) / net.radius[0], jnp.zeros_like(x)
        used = 0
        for at, ((inputs, outputs), factor) in enumerate(layers):
            if at:
                h = jnp.tanh(h)
                rise = 1 - h**2
                bend = rise * bend - 2 * h * rise * slope**2
                slope = rise * slope
            weight = factor * flat[used : used + inputs * outputs].reshape(inputs, outputs)
            used += inputs * outputs
            h = h @ weight + flat[used : used + outputs]
            used += outputs
            slope, bend = slope @ weight, bend @ weight
        return h[:, 0], bend[:, 0]

    def normal(y: Any, mean: Any, sd: float) -> Any:
        return jnp.sum(-0.5 * ((y - mean) / sd) ** 2) - len(y) * (math.log(sd) + HALF_LOG_2PI)

    def log_joint(flat: Any) -> Any:
        weights, k = flat[: net.dim], problem.constants.get("k")
        total = -0.5 * jnp.sum(weights**2) - net.dim * HALF_LOG_2PI
        if place is not None:
            (middle, spread), k = problem.unknown["k"], flat[place[0]]
            total += -0.5 * ((k - middle) / spread) ** 2 - math.log(spread) - HALF_LOG_2PI
        for at, (x, y, sd) in enumerate(given):
            u, bend = series(weights, x)
            total += normal(y, DIFFUSION * bend + k * jnp.tanh(u) if at == 0 else u, sd)
        return total

    return log_joint


def _jax() -> Any:
    """JAX in float64, on one thread: XLA takes all that it finds, and gains nothing by it at these sizes."""
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


def nuts(made: Setting, budget: Budget) -> Chains:
    """BlackJAX's NUTS; step size and diagonal scale adapted for each chain by its window adaptation."""
    _jax()
    import blackjax

    warmup = min(budget.warmup, max(budget.least, int(NUTS_WARMUP * budget.seconds)))
    return _adapted(blackjax.nuts, {}, made, budget._replace(warmup=warmup))


def hmc(made: Setting, budget: Budget) -> Chains:
    """BlackJAX's HMC with as many leapfrog steps as the others, adapted in the same way."""
    _jax()
    import blackjax

    return _adapted(blackjax.hmc, {"num_integration_steps": budget.steps}, made, budget)


def _adapted(algorithm: Any, settings: dict[str, Any], made: Setting, budget: Budget) -> Chains:
    """Adaptation, then blocks of transitions of all chains until the seconds are spent."""
    jax = _jax()
    import blackjax

    function, chains = log_density(made), len(made.start)
    adaptation = blackjax.window_adaptation(algorithm, function, **settings)

    def adapt(key: Any, start: Any) -> Any:
        (state, found), _ = adaptation.run(key, start, budget.warmup)
        return state, found["step_size"], found["inverse_mass_matrix"]

    def block(key: Any, state: Any, step_size: Any, scale: Any) -> Any:
        kernel = algorithm(function, step_size=step_size, inverse_mass_matrix=scale, **settings)

        def one(state: Any, key: Any) -> Any:
            state, info = kernel.step(key, state)
            return state, (state.position, info.num_integration_steps)

        return jax.lax.scan(one, state, jax.random.split(key, BLOCK))

    keys = jax.random.split(jax.random.PRNGKey(0), chains)
    clock, starts = time.process_time(), jax.numpy.asarray(made.start.numpy())
    warm = jax.jit(jax.vmap(adapt)).lower(keys, starts).compile()
    compilation, clock = time.process_time() - clock, time.process_time()
    state, *adapted = jax.block_until_ready(warm(keys, starts))
    adapting, clock = time.process_time() - clock, time.process_time()
    draw = jax.jit(jax.vmap(block)).lower(keys, state, *adapted).compile()
    compilation += time.process_time() - clock
    found, blocks = Chains(made, budget, compilation, adapting), 0
    while found.more():
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys, blocks)
        state, (position, count) = jax.block_until_ready(draw(keys, state, *adapted))
        blocks += 1
        found.keep(torch.from_numpy(np.array(position)), float(count.sum()))
    return found


def seconds_a_step(made: Setting, chains: int, steps: int, seconds: float) -> float:
    """Seconds of the processor for one leapfrog step of one chain, so many in one call, timed for so many seconds."""
    jax = _jax()
    import blackjax

    function = log_density(made)
    kernel = blackjax.hmc(
        function, step_size=1e-4, inverse_mass_matrix=np.ones(made.density.dim), num_integration_steps=steps
    )
    starts = jax.numpy.asarray(made.start[torch.arange(chains) % len(made.start)].numpy())
    keys = jax.random.split(jax.random.PRNGKey(0), chains)
    state = jax.vmap(kernel.init)(starts)
    step = jax.jit(jax.vmap(kernel.step)).lower(keys, state).compile()
    jax.block_until_ready(step(keys, state))
    clock, calls = time.process_time(), 0
    while calls < 3 or time.process_time() - clock < seconds:
        jax.block_until_ready(step(keys, state))
        calls += 1
    return (time.process_time() - clock) / (calls * chains * steps)
