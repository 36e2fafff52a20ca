"""One cell: a problem by a method, or what one leapfrog step costs with the paper's network."""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from bayesdd.inference import hmc
from studies.bpinn.cell import FULL as PAPER
from studies.bpinn.cell import PLAIN_STEPS, PROBLEMS, SMOKE, Problem, Setting, setting
from studies.bpinn_samplers import own, rivals
from studies.bpinn_samplers.chains import Budget, Chains, diagnostics
from studies.shared import cells

METHODS: dict[str, Callable[[Setting, Budget], Chains]] = {
    "constrained HMC": own.constrained_hmc,
    "blackjax NUTS": rivals.nuts,
    "blackjax HMC": rivals.hmc,
    "Pyro HMC": own.pyro_hmc,
}
RIVAL, STEP = "blackjax", "one step"  # begins the names of what needs the extra; what stands for a method's name
BY = " by "  # between the problem and the method in a cell's name
MANY = 32  # chains in one call, beside as many as are sampled
WARMUP = 300  # transitions at most, of plain HMC and NUTS
TIMED = 2.0  # seconds at least of a step's clock
SMALL = Budget(seconds=0.0, warmup=4, least=8, steps=2)


def lacking() -> bool:
    """Whether BlackJAX is not installed."""
    return importlib.util.find_spec("blackjax") is None


def measure(name: str, seconds: str = "0", *, smoke: bool = False) -> dict[str, Any]:
    """A cell: a problem by a method within so many seconds, or by one step."""
    cells.set_threads()
    begin = time.perf_counter()
    problem, _, method = name.partition(BY)
    wanted = next(one for one in PROBLEMS if one.name == problem)
    found = _steps(wanted, smoke) if method == STEP else _sampled(wanted, method, float(seconds), smoke)
    return found | {"seconds": time.perf_counter() - begin}


def _sampled(problem: Problem, method: str, seconds: float, smoke: bool) -> dict[str, Any]:
    made = setting(problem, SMOKE if smoke else PAPER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other packages' own making
        chains = METHODS[method](made, SMALL if smoke else Budget(seconds, WARMUP))
    u, k = chains.u, chains.k
    seen = diagnostics(u)
    found = {
        "rhat": float(seen.rhat.max()),
        "ess": float(seen.ess.min()),
        "median_ess": float(np.median(seen.ess)),
        "mean": u.mean((0, 1)).tolist(),
        "se": (u.flatten(0, 1).std(0).numpy() / np.sqrt(seen.ess)).tolist(),
        "error": float((u.mean((0, 1)) - made.truth).norm() / made.truth.norm()),
        "draws": u.shape[1],
        "compilation": chains.compilation,
        "adaptation": chains.adaptation,
        "sampling": chains.sampling,
        "steps": chains.steps,
        "reached": chains.reached,
        "weights": made.net.dim,
        "solutions": made.solutions,
    }
    if k is not None:
        found |= {"k": float(k.mean()), "k_sd": float(k.std()), "k_rhat": float(diagnostics(k).rhat[0])}
    return found


def _steps(problem: Problem, smoke: bool) -> dict[str, Any]:
    """Milliseconds of the processor for one leapfrog step of one chain with the paper's network."""
    made = setting(problem, SMOKE if smoke else replace(PAPER, climb=1))
    steps, seconds = (SMALL.steps, 0.0) if smoke else (PLAIN_STEPS, TIMED)
    found: dict[str, Any] = {"weights": made.net.dim}
    for chains in (len(made.start), MANY):
        found[f"bayesdd, {chains} chains"] = 1e3 * _own_step(made, chains, steps, seconds)
        if not lacking():
            found[f"{RIVAL}, {chains} chains"] = 1e3 * rivals.seconds_a_step(made, chains, steps, seconds)
    return found


def _own_step(made: Setting, chains: int, steps: int, seconds: float) -> float:
    start = made.start[torch.arange(chains) % len(made.start)]
    settings: Any = {"chains": chains, "seed": 2, "whiten": False, "max_steps": steps, "start": start, "warmup": 0}
    hmc(made.density, draws=1, **settings)  # records the density's graph
    clock, made_steps = time.process_time(), 0.0
    while made_steps == 0 or time.process_time() - clock < seconds:
        made_steps += float(hmc(made.density, draws=3, **settings).stats["n_steps"].sum())
    return (time.process_time() - clock) / made_steps
