"""Rows of an equation chosen in other ways: for several shapes at once, for the worst boundaries, with derivatives.

Question: ``studies.pinn_ood`` moves the inputs of rows to where one shape of network (2 x 16 tanh), trained on their
labels, errs least in root mean square. Do networks of other shapes learn more from rows that were moved for several
shapes in turn, is the worst boundary met better by rows that were moved for the worst fifth of all inputs, and does
plain torch learn more from rows that carry du/dx beside u?
Claim: none. It is a trial of three ideas that the literature suggests; the table says what each is worth.
How it could fail: the differences may be smaller than those between sets of measurements, of which there are three.
Cost: three minutes a cell on one thread; a cell is a number of rows and a set of measurements, kept between runs.

Sources: "Learning where to learn", arXiv 2505.21626, 2025 (inputs moved); Vahidian, Wang, Gu, Kungurtsev, Jiang & Chen,
"Group distributionally robust dataset distillation with risk minimization", arXiv 2402.04676, 2024 (the conditional
value at risk); Trenta, Cossu & Bacciu, "Learning and transferring physical models through derivatives", arXiv
2505.01391, 2025 (derivatives as outcomes).
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bayesdd import Refusal
from bayesdd.data.columns import Columns
from bayesdd.distillation.problem import Problem
from bayesdd.networks import row_search, students
from bayesdd.networks._function_space import JUDGE_SEED, starting_rows, starting_weight
from bayesdd.networks.calibration import interval_score, settled
from bayesdd.networks.judging import JUDGES
from bayesdd.networks.mlp import Network
from bayesdd.networks.purpose import Purpose
from bayesdd.networks.regression import Regression
from bayesdd.pinn import tasks
from studies.pinn_ood.cell import ACTIVATIONS, TESTS, Setting, tensors
from studies.pinn_ood.plain import RATE, Activation, trained
from studies.shared import cells, commands, stamps, tables

FAMILY, SIZES, SEEDS = "reaction-diffusion", (20, 50), 3
OTHERS = ((50, 50), (30,))  # hidden layers of the other shapes
WORST = 0.2  # share of the inputs whose mean error is the conditional value at risk
ROUNDS = 2  # turns of each shape, from either start
PLAIN = (50, 50)  # hidden layers of plain torch
ONE, SEVERAL, TAIL, SLOPES = "for 2 x 16", "for three shapes in turn", "for the worst fifth", "for 2 x 16, with du/dx"
Weighted = tuple[Columns, Tensor]


def main(
    *, smoke: bool = False, results: str | Path = cells.RESULTS, only: str = "", threads: int = 1, jobs: int = 1
) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/pinn_variants.md``.

    Args:
        smoke: Eight rows of a tiny network in this process; nothing is written.
        results: Folder of the table; the cells lie in ``pinn_variants/`` in it.
        only: Only cells whose name contains this, such as ``50-0``; the table is then printed, not written.
        threads: Threads a process.
        jobs: Processes at a time.

    Returns:
        One row a number of rows and a way of choosing them.
    """
    names = [f"{size}-{seed}" for size in SIZES for seed in range(SEEDS)]
    if smoke:
        found = {"8-0": measure("8-0", smoke=True)}
    else:
        chosen = commands.named(only, names, "cell")
        found = cells.run(
            {name: ["-m", "studies.pinn_variants", "--cell", name] for name in chosen},
            Path(results) / "pinn_variants",
            "studies.pinn_variants",
            threads=threads,
            jobs=jobs,
        )
    if failed := [name for name, cell in found.items() if "error" in cell]:
        raise Refusal(f"pinn_variants: the cell {failed[0]} failed: {found[failed[0]]['error']}")
    table = pd.DataFrame([row for size in dict.fromkeys(map(_size, found)) for row in _rows(size, found)])
    tables.report(
        None if smoke or only else Path(results) / "pinn_variants.md",
        table,
        notes=[
            f"{FAMILY}: relative L2 error out of distribution of networks trained from scratch, median over "
            f"{len(found) // len({_size(name) for name in found})} sets of measurements and their networks: ten of 2 x "
            f"16, four of each other shape; plain torch: 2 x 50, 2000 steps of Adam. worst boundary: the largest of "
            f"{TESTS} boundary parameters, 2 x 16.",
            "All rows move by 800 steps from the same two starts and have the same final scaling of the weights. "
            "With du/dx: rows moved as in the first line; plain torch alone takes the derivatives, in units of their "
            "spread, so that a row holds two numbers.",
            stamps.last_line(stamps.machine(threads), [] if smoke else [stamps.source_hash("studies.pinn_variants")]),
        ],
    )
    return table


def measure(name: str, *, smoke: bool = False) -> dict[str, Any]:
    """One cell: rows by every way, and what networks of several shapes make of them."""
    cells.set_threads()
    begin = time.process_time()
    size, seed = map(int, name.split("-"))
    setting = Setting(FAMILY, seed, smoke)
    shapes = [setting.regression, *(_other(setting, hidden) for hidden in OTHERS)]
    ways: dict[str, Callable[[], Weighted]] = {
        ONE: lambda: _chosen(setting, size, shapes[:1], None),
        SEVERAL: lambda: _chosen(setting, size, shapes, None),
        TAIL: lambda: _chosen(setting, size, shapes[:1], worst_error),
    }
    found: dict[str, dict[str, Any]] = {}
    kept = {}
    for way, rows_of in ways.items():
        clock = time.process_time()
        kept[way] = rows_of()
        found[way] = {"seconds": time.process_time() - clock} | _judged(setting, shapes, *kept[way])
    found[SLOPES] = {"seconds": found[ONE]["seconds"]} | _with_slopes(setting, *kept[ONE])
    return {"ways": found, "seconds": time.process_time() - begin}


def worst_error(regression: Regression, theta: Tensor, rows: Columns, precision: Tensor, purpose: Purpose) -> Tensor:
    """Log of the root mean square of the largest fifth of the errors, the target's variance added, ``(S,)``."""
    off = (regression.mean(theta, purpose.inputs) - purpose.mean) ** 2 + purpose.sd**2
    return 0.5 * off.topk(math.ceil(WORST * off.shape[1]), 1).values.mean(1).log()


def _chosen(setting: Setting, size: int, shapes: list[Regression], loss: row_search.Loss | None) -> Weighted:
    """The better of two sets whose inputs were moved for the shapes in turn."""
    some = setting.purpose.some(torch.arange(size))
    weight = starting_weight(setting.regression, setting.purpose).expand(size).clone()
    starts = (
        starting_rows(setting.regression, setting.purpose, setting.pool.data, setting.seed, size),
        ({**some.inputs, "u": some.mean}, weight),
    )
    turns = shapes if len(shapes) == 1 else ROUNDS * shapes
    steps = max(1, setting.sizes["steps"] // 2 // len(turns))
    found = []
    for rows, given in starts:
        for turn, shape in enumerate(turns):
            problem = Problem.from_rows(
                setting.pool, rows, given, torch.device("cpu"), equal_weights=False, move_rows=True
            )
            vector = row_search.search(
                shape, problem, setting.purpose, setting.seed + turn, lambda _: None,
                steps=steps, students=4, restart=10, tie=functools.partial(_tied, setting), loss=loss,
            )  # fmt: skip
            with torch.no_grad():
                rows, given = problem.stored(vector)
                rows = _tied(setting, rows)
        scale = settled(
            setting.regression, rows, given, setting.purpose,
            count=2 * JUDGES, seed=setting.seed + 2 * JUDGE_SEED, steps=setting.sizes["judge"],
        )  # fmt: skip
        found.append((rows, given * float(np.exp(scale))))
    return min(found, key=lambda one: sum(_score(setting, shape, *one) for shape in shapes))


def _tied(setting: Setting, rows: Columns) -> Columns:
    assert setting.purpose.label is not None
    return {**rows, "u": setting.purpose.label(rows)}


def _score(setting: Setting, shape: Regression, rows: Columns, weight: Tensor) -> float:
    precision = weight / shape.noise**2
    with torch.no_grad():
        fits = students.from_scratch(shape, rows, precision, JUDGES, setting.seed + JUDGE_SEED, setting.sizes["judge"])
        return float(interval_score(shape, fits.latents, rows, precision, setting.purpose).median())


def _other(setting: Setting, hidden: tuple[int, ...]) -> Regression:
    """A network of other hidden layers as a regression."""
    own: Network = setting.surrogate.networks.fields
    network = Network(own.centre, own.radius, hidden, outputs=own.outputs)
    return Regression(tasks.student(setting.problem, network, setting.pool.data, setting.regression.noise), "the study")


def _judged(setting: Setting, shapes: list[Regression], rows: Columns, weight: Tensor) -> dict[str, list[float]]:
    """Errors out of distribution of every shape's networks, and of plain torch's."""
    points, truth = setting.tests(-1.0)
    found: dict[str, list[float]] = {}
    for at, shape in enumerate(shapes):
        name = " x ".join(map(str, (len(hidden := (setting.sizes["fit"]["hidden"], *OTHERS)[at]), hidden[0])))
        count = setting.sizes["students"] if not at else 2 * setting.sizes["other"]
        fits = students.from_scratch(shape, rows, weight / shape.noise**2, count, 10_007, setting.sizes["judge"])
        with torch.no_grad():
            means = shape.mean(fits.latents, tensors(points)).numpy()
        found[name] = [_error(mean, truth) for mean in means]
        if not at:
            by_boundary = [_error(mean.reshape(TESTS, -1), truth.reshape(TESTS, -1), axis=1).max() for mean in means]
            found["worst boundary"] = [float(one) for one in by_boundary]
    for name, activation in ACTIVATIONS.items():
        networks = trained(
            setting.stacked(rows), rows["u"], weight,
            hidden=PLAIN, activation=activation, count=setting.sizes["other"], steps=setting.sizes["adam"],
        )  # fmt: skip
        values = networks(setting.stacked(tensors(points))).numpy()
        found[f"torch, {name}"] = [_error(one, truth) for one in values]
    return found


def _with_slopes(setting: Setting, rows: Columns, weight: Tensor) -> dict[str, list[float]]:
    """Errors of plain torch that learns from u and du/dx."""
    assert setting.purpose.label is not None
    x = rows["x"].detach().clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(setting.purpose.label({**rows, "x": x}).sum(), x)
    low, high = setting.problem.ranges["x"]
    points, truth = setting.tests(-1.0)
    found = {}
    for name, activation in ACTIVATIONS.items():
        networks = _trained_on_slopes(
            setting.stacked(rows), rows["u"], slope * (high - low) / 2, weight,
            activation=activation, count=setting.sizes["other"], steps=setting.sizes["adam"],
        )  # fmt: skip
        values = networks(setting.stacked(tensors(points))).numpy()
        found[f"torch, {name}"] = [_error(one, truth) for one in values]
    return found


def _trained_on_slopes(
    z: Tensor, u: Tensor, slope: Tensor, weight: Tensor, *, activation: Activation, count: int, steps: int
) -> Callable[[Tensor], Tensor]:
    """As ``plain.trained``, on u and its derivative in the first of the inputs ``(M, d)``."""
    middle, unit, steep = u.mean(), u.std().clamp_min(1e-12), slope.std().clamp_min(1e-12)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = []
        for _ in range(count):
            pairs = itertools.pairwise((z.shape[1], *PLAIN, 1))
            nets.append([torch.nn.Linear(a, b, dtype=torch.float64) for a, b in pairs])
    adam = torch.optim.Adam([one for net in nets for layer in net for one in layer.parameters()], lr=RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)

    def value(net: list[torch.nn.Linear], at: Tensor) -> Tensor:
        h = at
        for layer in net[:-1]:
            h = activation(layer(h))
        return middle + unit * net[-1](h)[:, 0]

    for _ in range(steps):
        adam.zero_grad()
        for net in nets:
            at = z.detach().clone().requires_grad_(True)
            given = value(net, at)
            (gradient,) = torch.autograd.grad(given.sum(), at, create_graph=True)
            errors = ((given - u) / unit) ** 2 + ((gradient[:, 0] - slope) / steep) ** 2
            ((weight * errors).sum() / weight.sum()).backward()
        adam.step()
        falling.step()
    return lambda at: torch.stack([value(net, at) for net in nets]).detach()


def _error(mean: np.ndarray, truth: np.ndarray, axis: int | None = None) -> Any:
    found = np.sqrt(((mean - truth) ** 2).mean(axis) / (truth**2).mean(axis))
    return float(found) if axis is None else found


def _size(name: str) -> int:
    return int(name.split("-")[0])


def _rows(size: int, found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    mine = [cell["ways"] for name, cell in found.items() if _size(name) == size]
    columns = list(mine[0][ONE])
    rows = []
    for way in mine[0]:
        row: dict[str, Any] = {"M": size, "rows moved": way}
        for name in columns:
            values = [value for one in mine for value in np.atleast_1d(one[way].get(name, []))]
            row[name] = (
                "" if not values else f"{np.median(values):.0f}" if name == "seconds" else f"{np.median(values):.3g}"
            )
        rows.append(row)
    return rows


if __name__ == "__main__":
    commands.run(main, cell=measure)
