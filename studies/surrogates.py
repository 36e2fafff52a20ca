"""Surrogates of 300 to 100,000 weights: how close, how wide, how dear, and how far plain torch comes at equal time.

Question: 200 noisy measurements lie in one tail of the boundary parameter, the equation holds everywhere
(``studies.pinn_ood``). What does ``bayesdd.pinn.fit`` cost as its networks grow, does its mean come closer to the
solution than a physics-informed network of plain torch that is trained for as long, and do its intervals hold?
Claim: in every family and width the surrogate errs at most a tenth of what plain torch errs out of distribution, and
10,000 weights take at most two minutes of the processor and 2 GB.
How it could fail: plain training with a good learning rate and a second-order finish comes as close; memory that grows
with the square of the weights; wide networks that their prior holds where narrow ones were; intervals that a wide
network's own error leaves too narrow.
Cost: a quarter of an hour on one thread, three times what the surrogates take, five minutes of it for 100,000 weights,
which are measured once; a cell is a family and a width, a process and a JSON file, kept between runs.

Plain torch: float64, 1,024 Sobol points, both sides at 256 parameters, all measurements; Adam with a cosine for half of
the time and L-BFGS with line search for the other half, at each of two learning rates; the lower loss is taken, so that
it spends twice the surrogate's time. It gives no intervals.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from studies.pinn_ood.cell import NOISE, Measured, scores, tails, tensors
from studies.pinn_ood.problems import VISCOSITY
from studies.shared import cells, commands, stamps, tables

WIDTHS: dict[str, dict[str, Any]] = {
    "2 x 16": {"hidden": (16, 16)},
    "2 x 100": {"hidden": (100, 100), "modes": 1},
    "2 x 316": {"hidden": (316, 316), "modes": 1},
}
LARGEST = "2 x 316"  # of the first family alone
CLOSER, SECONDS, GIB, CLAIMED_WEIGHTS = 10.0, 120.0, 2.0, 10_000
RATES = (1e-2, 1e-3)  # of Adam
POINTS, SIDES, CHECKED = 1024, 256, 20  # CHECKED: steps between looks at the clock


class Equation(NamedTuple):
    """A family as plain torch takes it: the residual of (x, u, u', u''), and both sides with their values."""

    residual: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    sides: tuple[tuple[float, Callable[[Tensor], Tensor]], ...]


def _wall(side: float) -> Callable[[Tensor], Tensor]:
    """The value of the steady flow at a side."""
    return lambda alpha: -alpha * torch.tanh(alpha * side / (2 * VISCOSITY))


EQUATIONS = {
    "reaction-diffusion": Equation(
        lambda x, u, u_x, u_xx: 0.1 * u_xx - u**3 - torch.sin(3 * x), ((-1.0, lambda a: a), (1.0, lambda a: -a / 2))
    ),
    "cubic": Equation(lambda x, u, u_x, u_xx: u_xx - 2 * u**3, ((0.0, lambda a: a), (1.0, lambda a: a / (1 + a)))),
    "steady-burgers": Equation(
        lambda x, u, u_x, u_xx: u * u_x - VISCOSITY * u_xx,
        ((-1.0, _wall(-1.0)), (1.0, _wall(1.0))),
    ),
}


def main(*, smoke: bool = False, results: str | Path = cells.RESULTS, only: str = "", threads: int = 1) -> pd.DataFrame:
    """Measures what is not measured yet, prints the table and writes it to ``results/surrogates.md``.

    Args:
        smoke: One tiny network in this process; nothing is written.
        results: Folder of the table; the cells lie in ``surrogates/`` in it.
        only: Only cells whose name contains this; the table is then printed, not written.
        threads: Threads of torch.

    Returns:
        One row a cell; ``met`` says whether the claim holds.
    """
    wanted = [(family, width) for width in WIDTHS for family in EQUATIONS]
    wanted = [one for one in wanted if one[1] != LARGEST or one[0] == next(iter(EQUATIONS))]
    names = {f"{family}, {width}": (family, width) for family, width in wanted}
    if smoke:
        found = {name: measure(*names[name], smoke=True) for name in list(names)[:1]}
    else:
        chosen = {
            name: ["-m", "studies.surrogates", "--cell", *names[name]] for name in commands.named(only, names, "cell")
        }
        found = cells.run(chosen, Path(results) / "surrogates", "studies.surrogates", threads=threads, jobs=1)
    least = 1.0 if smoke else CLOSER
    table = pd.DataFrame([_row(*names[name], cell, least) for name, cell in found.items()])
    tables.report(
        None if smoke or only else Path(results) / "surrogates.md",
        table,
        notes=[
            "error: relative L2 at 576 points of a tail of the parameter, in: the one that was measured; held: share "
            f"of the truth in 90 % intervals. Noise of the measurements: sd {NOISE:g}.",
            "seconds: of the processor. plain torch: the lower loss of two learning rates, each for as long as the "
            "surrogate took. closer: its error out over the surrogate's.",
            stamps.last_line(stamps.machine(threads), [] if smoke else [stamps.source_hash("studies.surrogates")]),
        ],
    )
    return table


def measure(family: str, width: str, *, smoke: bool = False) -> dict[str, Any]:
    """One cell: the surrogate, then plain torch for as long."""
    cells.set_threads()
    measured = Measured(family, 0)
    settings: dict[str, Any] = {"hidden": (5,), "modes": 1, "steps": 10, "points": 64} if smoke else WIDTHS[width]
    surrogate, seconds = measured.fitted(**settings)
    found: dict[str, Any] = {"seconds": seconds, "GiB": cells.peak_memory()}
    for place, points, truth in tails(measured):
        found[place] = scores(*surrogate.predict(points)["u"], truth)
    ends = [trained(measured, EQUATIONS[family], settings["hidden"], rate, seconds) for rate in RATES]
    _, network, found["steps"] = min(ends, key=lambda end: end[0])
    found["weights"] = sum(weight.numel() for weight in network.parameters())
    for place, points, truth in tails(measured):
        with torch.no_grad():
            mean = network(measured.stacked(tensors(points)))[:, 0].numpy()
        found[f"plain {place}"] = scores(mean, 0 * mean, truth)["error"]
    return found


def trained(
    measured: Measured, equation: Equation, hidden: tuple[int, ...], rate: float, seconds: float, seed: int = 0
) -> tuple[float, torch.nn.Sequential, int]:
    """Loss, network and number of evaluations of a physics-informed network of plain torch after so many seconds."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pairs = list(itertools.pairwise((2, *hidden, 1)))
        layers = [part for a, b in pairs for part in (torch.nn.Linear(a, b), torch.nn.Tanh())][:-1]
    network = torch.nn.Sequential(*layers).double()
    ranges = measured.problem.ranges
    (low, high), (least, most) = ranges["x"], ranges["alpha"]
    sobol = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed).draw(POINTS, dtype=torch.float64)
    x = (low + (high - low) * sobol[:, 0]).requires_grad_()
    alpha = least + (most - least) * sobol[:, 1]
    data, sides = tensors(measured.data), torch.linspace(least, most, SIDES, dtype=torch.float64)

    def field(x: Tensor, alpha: Tensor) -> Tensor:
        found: Tensor = network(measured.stacked({"x": x, "alpha": alpha}))[:, 0]
        return found

    def loss() -> Tensor:
        u = field(x, alpha)
        (u_x,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
        total = equation.residual(x, u, u_x, u_xx).square().mean()
        for side, value in equation.sides:
            total = total + (field(torch.full_like(sides, side), sides) - value(sides)).square().mean()
        return total + (field(data["x"], data["alpha"]) - data["u"]).square().mean()

    begin, steps = time.process_time(), 0
    adam = torch.optim.Adam(network.parameters(), lr=rate)
    while (used := (time.process_time() - begin) / seconds) < 0.5:
        for group in adam.param_groups:
            group["lr"] = rate * (0.5 - used) * 2
        for _ in range(CHECKED):
            adam.zero_grad()
            loss().backward()
            adam.step()
        steps += CHECKED
    lbfgs = torch.optim.LBFGS(network.parameters(), max_iter=CHECKED, history_size=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        nonlocal steps
        steps += 1
        lbfgs.zero_grad()
        value = loss()
        value.backward()
        return value

    before = float("inf")
    while time.process_time() - begin < seconds:
        now = float(lbfgs.step(closure).detach())
        if now == before:
            break  # at the end of what float64 resolves
        before = now
    return float(loss().detach()), network, steps


def _row(family: str, width: str, cell: dict[str, Any], least: float) -> dict[str, Any]:
    """A cell as it is printed."""
    if "error" in cell:
        return {"family": family, "networks": width, "error out": f"failed: {cell['error']}", "met": False}
    closer = cell["plain out"] / cell["out"]["error"]
    met = closer >= least
    if width == "2 x 100":
        met = met and cell["seconds"] <= SECONDS and cell["GiB"] <= GIB and cell["weights"] >= CLAIMED_WEIGHTS
    return {
        "family": family,
        "networks": width,
        "weights": f"{cell['weights']:,}",
        "error in": f"{cell['in']['error']:.1e}",
        "held in": f"{cell['in']['held']:.2f}",
        "error out": f"{cell['out']['error']:.1e}",
        "held out": f"{cell['out']['held']:.2f}",
        "plain torch in": f"{cell['plain in']:.1e}",
        "out": f"{cell['plain out']:.1e}",
        "closer": f"{closer:.0f}",
        "seconds": f"{cell['seconds']:.0f}",
        "peak GiB": f"{cell['GiB']:.2f}",
        "met": bool(met),
    }


if __name__ == "__main__":
    commands.run(main, cell=measure)
