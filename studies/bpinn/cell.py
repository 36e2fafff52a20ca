"""Cells of ``studies.bpinn``: chains of a problem, and plain HMC on it with Pyro's clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.inference import constrained, hmc
from bayesdd.inference.network_modes import randomised
from bayesdd.networks import mlp
from bayesdd.networks.functions import coverage, values
from bayesdd.posterior.arviz import Diagnostics, function_diagnostics
from studies.bpinn import equations, pyro
from studies.shared import cells

POINTS = 101  # where u is looked at
PLAIN_STEPS = 50  # leapfrog steps of a transition, as in the paper
APART = 3.0  # in mean square size: solutions of the nonlinear equation beside the first are seven times larger and more


@dataclass(frozen=True)
class Problem:
    """A problem of the paper, and what is known of its answers."""

    name: str
    linear: bool
    sensors: int
    noise: float
    inside: int = 0  # sensors of u; an inverse problem has them, ends included
    rerun: float = float("nan")  # relative L2 error of plain HMC
    paper_sd: float = float("nan")  # posterior sd of k in the paper
    longer: int = 1  # times as many draws as the others


@dataclass(frozen=True)
class Size:
    """How large a problem's cells are: network, searches for starts, chains; plain HMC's draws and clock."""

    width: int
    searches: int
    climb: int
    chains: int
    warmup: int
    draws: int
    steps: int
    plain: int
    many: int


PROBLEMS = (
    Problem("linear, noise 0.01", True, 16, 0.01, rerun=0.058),
    Problem("nonlinear, noise 0.01", False, 32, 0.01, rerun=0.0346),
    Problem("inverse k, noise 0.01", False, 32, 0.01, inside=8, rerun=0.0119, paper_sd=5.75e-3),
    Problem("inverse k, noise 0.1", False, 32, 0.1, inside=8, rerun=0.126, paper_sd=5.63e-2, longer=4),
)
FULL = Size(width=50, searches=12, climb=50, chains=4, warmup=60, draws=500, steps=50, plain=300, many=32)
SMOKE = Size(width=4, searches=3, climb=20, chains=3, warmup=4, draws=8, steps=4, plain=8, many=4)
PLAIN = " by plain HMC"  # behind a problem's name: its other cell


def measure(name: str, size: Size = FULL) -> dict[str, Any]:
    """Measures one cell: a problem, or a problem by plain HMC."""
    problem = next(problem for problem in PROBLEMS if problem.name == name.removesuffix(PLAIN))
    return (plain if name.endswith(PLAIN) else sampled)(problem, size)


@dataclass(frozen=True, eq=False)
class Setting:
    """The posterior, where chains start, and the function."""

    tasks: list[Any]
    net: Any
    density: Density
    start: Tensor
    solutions: int
    x: Tensor
    truth: Tensor

    def u(self, draws: Tensor) -> Tensor:
        """U at 101 points."""
        net = self.net
        return values(lambda flat: mlp.value(net, mlp.split(net, flat[: net.dim]), self.x), draws)


def setting(problem: Problem, size: Size) -> Setting:
    """The problem with its searches made; the same in every process."""
    cells.set_threads()
    equation = equations.problem(linear=problem.linear, inverse=bool(problem.inside))
    measured: dict[str, Any] = {"sensors": problem.sensors, "inside": problem.inside, "noise": problem.noise}
    tasks, net = equations.target(equation, size.width, **measured)
    density = Density([(task, task.data, None) for task in tasks])
    x = torch.linspace(-equations.END, equations.END, POINTS, dtype=torch.float64)[:, None]
    made = Setting(tasks, net, density, torch.empty(0), 0, x, equations.exact(x[:, 0]))
    found = randomised(density, size.searches, seed=0, steps=size.climb).points
    start, solutions = _starts(density, found, made.u(found), size.chains)
    return replace(made, start=start, solutions=solutions)


def sampled(problem: Problem, size: Size) -> dict[str, Any]:
    """Chains of constrained HMC and what they say of u and k."""
    begin = time.perf_counter()
    made = setting(problem, size)
    clock, count = time.process_time(), problem.longer * size.draws
    draws = constrained(
        made.density,
        draws=count,
        chains=size.chains,
        seed=0,
        warmup=size.warmup,
        start=made.start,
        max_steps=size.steps,
    )
    sampling = (time.process_time() - clock) * count / (count + size.warmup)
    u = made.u(draws.values)
    seen = _diagnostics(u)
    found = _error(u, made.truth, seen) | {
        "rhat": float(seen.rhat.max()),
        "ess": float(seen.ess.min()),
        "cover": coverage(u.flatten(0, 1), made.truth)[0],
        "solutions": made.solutions,
        "draws": count,
        "accepted": float(draws.stats["acceptance_rate"].mean()),
        "stuck": float(draws.stats["stuck"].double().mean()),
        "step_size": float(draws.stats["step_size"][0, 0]),
        "sampling": sampling,
        "step": sampling / float(draws.stats["n_steps"].sum()),
    }
    if problem.inside:
        k = draws.values[:, :, made.density.starts["k"][0]]
        of_k = _diagnostics(k)
        found |= {"k": float(k.mean()), "k_sd": float(k.std()), "k_rhat": float(of_k.rhat[0])}
    return found | {"seconds": time.perf_counter() - begin}


def plain(problem: Problem, size: Size) -> dict[str, Any]:
    """Plain HMC as in Pyro, the seconds of a step of Pyro's own, and those of a step of a chain among many.

    Its chains begin where the searches end, in the midst of the posterior. So few draws flatter it: the effective
    sample size of chains that hardly move is taken to be about their number.
    """
    begin = time.perf_counter()
    made = setting(problem, size)
    draws = hmc(
        made.density,
        draws=size.plain,
        chains=size.chains,
        seed=1,
        warmup=size.plain // 2,
        start=made.start,
        whiten=False,
        max_steps=PLAIN_STEPS,
    )
    u = made.u(draws.values)
    seen = _diagnostics(u)
    step = float(draws.stats["step_size"][0, 0])
    steps = 2 if size.width < 10 else PLAIN_STEPS
    return _error(u, made.truth, seen) | {
        "ess": float(seen.ess.min()),
        "rhat": float(seen.rhat.max()),
        "steps": float(draws.stats["n_steps"].sum()),
        "step_size": step,
        "batched_step": _batched_step(made, size.many),
        "pyro_step": pyro.seconds_a_step(made.density, made.tasks, made.net, draws.values[0, -1], step, steps),
        "seconds": time.perf_counter() - begin,
    }


def _batched_step(made: Setting, chains: int) -> float:
    """Seconds of the processor for one leapfrog step of one chain of plain HMC, many chains at a time."""
    start = made.start[torch.arange(chains) % len(made.start)]
    settings: Any = {"chains": chains, "seed": 2, "whiten": False, "max_steps": PLAIN_STEPS, "start": start}
    hmc(made.density, draws=1, warmup=1, **settings)  # records the density's graph
    clock = time.process_time()
    steps = hmc(made.density, draws=10, warmup=0, **settings).stats["n_steps"]
    return (time.process_time() - clock) / float(steps.sum())


def _error(u: Tensor, truth: Tensor, seen: Diagnostics) -> dict[str, float]:
    """Relative L2 error of the mean of u ``(chains, draws, points)``, and its Monte Carlo standard error."""
    chance = (u.flatten(0, 1).var(0) / torch.as_tensor(seen.ess)).sum().sqrt()
    off = (u.mean((0, 1)) - truth).norm()
    return {"error": float(off / truth.norm()), "error_se": float(chance / truth.norm())}


def _diagnostics(numbers: Tensor) -> Diagnostics:
    """R-hat and effective sample size; NaN, in silence, of chains that do not move: at smoke size some do not."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return function_diagnostics(numbers)


def _starts(density: Density, points: Tensor, u: Tensor, count: int) -> tuple[Tensor, int]:
    """Ends of searches that fit the rows and are not much larger than the smallest; how many different ones fit."""
    misfit = -density.sweep(points)
    fits = misfit <= misfit.min() + 5 * density.size
    size = torch.where(fits, (u**2).mean(1).sqrt(), torch.inf)
    order = size.argsort()[: int(fits.sum())]
    near = order[size[order] < APART * size[order[0]]]
    different: list[Tensor] = []
    for at in order:
        if all(float((u[at] - other).norm() / other.norm()) > 0.3 for other in different):
            different.append(u[at])
    return points[near[torch.arange(count) % len(near)]], len(different)
