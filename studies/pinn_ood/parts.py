"""Parts of the study of physics-informed networks: the target's predictive, students from scratch, their measures."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from bayesdd import Task, kinds
from bayesdd.data.columns import Columns
from bayesdd.networks import bnn, students
from bayesdd.networks import mlp as nets
from bayesdd.networks.purpose import linearised, modes
from bayesdd.networks.regression import Regression
from bayesdd.pinn import _target, equation
from bayesdd.pinn.equation import Family
from bayesdd.target.target import Target
from models.pde_burgers import BURGERS, STEADY_BURGERS
from models.pde_cubic import CUBIC
from models.pde_fisher import FISHER_KPP
from models.pde_helmholtz import HELMHOLTZ
from models.pde_reaction import REACTION_DIFFUSION

FAMILIES: dict[str, Family] = {
    "reaction-diffusion": REACTION_DIFFUSION,
    "cubic": CUBIC,
    "steady-burgers": STEADY_BURGERS,
    "fisher-kpp": FISHER_KPP,
    "burgers": BURGERS,
    "helmholtz": HELMHOLTZ,
}
NOISE = 0.1
TEST_ALPHAS, TEST_POINTS = 12, 33
Z90 = 1.6448536269514722


def settings(smoke: bool) -> dict[str, Any]:
    """Sizes of the study, full and tiny."""
    if smoke:
        tiny = {"hidden": (4,), "rows": 30, "collocation": 40, "alphas": 10, "modes": 1, "climb": 15}
        return {**tiny, "purpose": 64, "students": 3, "fit": 20, "steps": 12}
    full = {"hidden": (16, 16), "rows": 200, "collocation": 512, "alphas": 64, "modes": 4, "climb": 200}
    return {**full, "purpose": 768, "students": 10, "fit": 400, "steps": 1000}


def measured(family: Family, seed: int, smoke: bool) -> Columns:
    """The noisy measurements, alpha in its upper tail."""
    return equation.measured(family, settings(smoke)["rows"], NOISE, 100 * seed)


def student(family: Family, seed: int, smoke: bool) -> Task:
    """The plain network on the measurements, its noise known; rows may move over the whole domain."""
    low, high = family.x[0] if len(family.x) == 1 else torch.tensor(family.x, dtype=torch.float64).T
    alpha_low, alpha_high = family.alpha or (0.0, 1.0)
    domain = {"x": kinds.interval(low, high), "alpha": kinds.interval(alpha_low, alpha_high)}
    network = _target.surrogate(family, settings(smoke)["hidden"])
    return bnn.student(measured(family, seed, smoke), network=network, noise=NOISE, kinds=domain)


def inputs(rows: Columns) -> Columns:
    """Columns without the outcome."""
    return {name: column for name, column in rows.items() if name != "y"}


def purpose(family: Family, seed: int, smoke: bool) -> Columns:
    """Inputs over the whole domain of x, alpha by its distribution, Sobol: what the student is for."""
    return equation.inputs(family, settings(smoke)["purpose"], 100 * seed + 7)


def tests(family: Family) -> dict[str, Columns]:
    """Noise-free solutions at alphas of both tails: ``in`` where measurements are, ``out`` where none is."""
    return {
        "in": equation.grid(family, equation.upper_tail(family, TEST_ALPHAS, 98), TEST_POINTS),
        "out": equation.grid(family, equation.lower_tail(family, TEST_ALPHAS, 99), TEST_POINTS),
    }


def teach(family: Family, seed: int, *, smoke: bool = False) -> dict[str, Any]:
    """The target's predictive, with boundary values and without: at the purpose and at the tests; its best mode."""
    begin = time.process_time()
    chosen, found = settings(smoke), {}
    learner = student(family, seed, smoke)
    regression = Regression(learner, "the study")
    network = _target.surrogate(family, chosen["hidden"])
    tasks = _target.target(
        family,
        measured(family, seed, smoke),
        network=network,
        collocation=chosen["collocation"],
        alphas=chosen["alphas"],
        seed=seed,
    )
    grids = tests(family)
    places = {"purpose": purpose(family, seed, smoke), "in": inputs(grids["in"]), "out": inputs(grids["out"])}
    for name, parts in (("target", tasks), ("free", tasks[:2])):
        target = Target(parts, learner, "cpu", seed)
        mode = modes(target, seed, searches=chosen["modes"], steps=chosen["climb"])[:1]
        measures: dict[str, dict[str, Any]] = {}
        for place, columns in places.items():
            values = linearised(regression, target, mode, columns, seed)
            measures[place] = {"mean": values.mean(0).tolist(), "sd": values.std(0).tolist()}
            if place in grids:
                measures[place] |= scores(values.mean(0), values.std(0), grids[place]["y"])
        mode = mode[:, target.index]
        residual = float(_residual(family, network, mode, grids["out"])[0])
        found[name] = {**measures, "mode": mode[0].tolist(), "residual": residual}
    return {**found, "seconds": time.process_time() - begin}


def scores(mean: Tensor, sd: Tensor, truth: Tensor) -> dict[str, float]:
    """Relative L2 error, coverage of 90% intervals and their mean width."""
    off = mean - truth
    return {
        "error": float(off.square().mean().sqrt() / truth.square().mean().sqrt()),
        "coverage": float((off.abs() <= Z90 * sd).double().mean()),
        "width": float(2 * Z90 * sd.mean()),
    }


def judge(family: Family, learner: Task, rows: Columns, weight: Tensor, *, smoke: bool) -> dict[str, Any]:
    """Students trained from scratch on weighted rows: each one's scores on both tests, and the ensemble's.

    Returns:
        Measure -> one value a student; ``ensemble``: scores of the students' mean and spread between them.
    """
    chosen, grids = settings(smoke), tests(family)
    regression = Regression(learner, "the study")
    precision = weight / regression.noise**2
    fits = students.from_scratch(regression, rows, precision, chosen["students"], 10_007, chosen["fit"])
    found: dict[str, Any] = {"ensemble": {}}
    for place, grid in grids.items():
        with torch.no_grad():
            mean, sd = students.spread(regression, fits.latents, rows, precision, inputs(grid))
        each = [scores(m, s, grid["y"]) for m, s in zip(mean, sd, strict=True)]
        found |= {f"{key}_{place}": [one[key] for one in each] for key in each[0]}
        between = mean.std(0) if len(mean) > 1 else torch.full_like(mean[0], math.nan)
        found["ensemble"][place] = scores(mean.mean(0), between, grid["y"])
    network = _target.surrogate(family, chosen["hidden"])
    found["residual"] = _residual(family, network, fits.latents, grids["out"]).tolist()
    return found


def _residual(family: Family, network: nets.Network, latents: Tensor, grid: Columns) -> Tensor:
    """Root mean squared residual of the equation at the test points of the lower tail, one a student."""
    x, alpha = grid["x"], grid["alpha"]
    source, values = family.source(x, alpha), []
    for flat in latents:
        jet = nets.jet(network, nets.split(network, flat), nets.inputs(network, x, alpha), x.shape[1])
        values.append((family.residual(x, alpha, jet, family.parameters) - source).square().mean().sqrt())
    return torch.stack(values)
