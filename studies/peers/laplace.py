"""A Laplace approximation around a plain physics-informed network by laplace-torch: all weights, full curvature.

The library knows networks and rows with outcomes. Equation and sides are therefore rows too: a module whose output is
u, the residual or the value at a side, each in units of its noise, with outcome zero for what is to vanish. The noise
of the measurements is known; that of residuals and sides is what the training has left of them. The precision of the
prior is found by the marginal likelihood, and is the least power of ten that allows a factorisation where the one found
does not. Predictions are the library's own, of the linearised network.

Source: Daxberger, Kristiadi, Immer, Eschenhagen, Bauer & Hennig, "Laplace Redux", NeurIPS 2021.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studies.pinn_ood.cell import NOISE, Measured, tensors
from studies.surrogates import POINTS, SIDES, Equation

MEASURED, EQUATION, SIDE = 0, 1, 2  # kinds of rows: their last column
STEPS, RATE = 200, 0.1  # of the search for the prior's precision
PRECISIONS = [10.0**power for power in range(9)]  # tried in turn where rounding leaves the curvature indefinite


class Rows(torch.nn.Module):
    """A network as a function of rows ``(x, alpha, kind)``: u, the residual or a side's u, in units of their noise."""

    def __init__(self, network: torch.nn.Sequential, measured: Measured, equation: Equation) -> None:
        super().__init__()
        self.network, self.equation, self.ranges = network, equation, measured.problem.ranges
        self.noise = torch.tensor([NOISE, 1.0, 1.0], dtype=torch.float64)

    def forward(self, rows: Tensor) -> Tensor:
        """Outputs ``(N, 1)``."""
        u, slope, bend = self.series(rows)
        left = self.equation.residual(rows[:, 0], u, slope, bend)
        kind = rows[:, 2].long()
        return (torch.where(kind == EQUATION, left, u) / self.noise[kind])[:, None]

    def series(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The network and its first two derivatives in x: carried along, since the library differentiates forward."""
        (low, high), (least, most) = (self.ranges[name] for name in ("x", "alpha"))
        h = torch.stack([2 * (rows[:, 0] - low) / (high - low) - 1, 2 * (rows[:, 1] - least) / (most - least) - 1], 1)
        slope = torch.zeros_like(h) + torch.tensor([2 / (high - low), 0.0], dtype=h.dtype)
        bend = torch.zeros_like(h)
        for layer in self.network:
            if isinstance(layer, torch.nn.Linear):
                h, slope, bend = layer(h), slope @ layer.weight.T, bend @ layer.weight.T
            else:
                h = torch.tanh(h)
                rise = 1 - h**2
                slope, bend = rise * slope, rise * bend - 2 * h * rise * slope**2
        return h[:, 0], slope[:, 0], bend[:, 0]


def around(
    network: torch.nn.Sequential, measured: Measured, equation: Equation
) -> Callable[[dict[str, np.ndarray]], tuple[np.ndarray, np.ndarray]]:
    """Points -> mean and standard deviation of u."""
    from laplace import Laplace

    model = Rows(network, measured, equation)
    x, y = _training(model, measured)
    loader: Any = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=len(x))
    with contextlib.redirect_stdout(io.StringIO()), torch.random.fork_rng():
        found: Any = Laplace(model, "regression", subset_of_weights="all", hessian_structure="full")
        found.fit(loader)
        with contextlib.suppress(RuntimeError):  # torch's error of matrices that are not positive definite is one
            found.optimize_prior_precision(method="marglik", n_steps=STEPS, lr=RATE)
        _factorised(found)

    def predicted(points: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        rows = _rows(torch.from_numpy(points["x"]), torch.from_numpy(points["alpha"]), MEASURED)
        mean, variance = found(rows)
        return NOISE * mean.detach()[:, 0].numpy(), NOISE * variance.detach().flatten().sqrt().numpy()

    return predicted


def _factorised(found: Any) -> None:
    """Raises the prior's precision, if need be, to the first power of ten with which the curvature has a root."""
    for precision in (None, *PRECISIONS):
        if precision is not None:
            found.prior_precision = precision
        with contextlib.suppress(RuntimeError):
            found._compute_scale()
            return
    raise ArithmeticError("laplace-torch: the curvature has no root with any precision of the prior that was tried")


def _training(model: Rows, measured: Measured) -> tuple[Tensor, Tensor]:
    """All rows and their outcomes in units of the noise; sets the noise of equation and sides to what is left there."""
    (low, high), (least, most) = (model.ranges[name] for name in ("x", "alpha"))
    sobol = torch.quasirandom.SobolEngine(2, scramble=True, seed=1).draw(POINTS, dtype=torch.float64)
    alpha = torch.linspace(least, most, SIDES, dtype=torch.float64)
    data = tensors(measured.data)
    inner = _rows(low + (high - low) * sobol[:, 0], least + (most - least) * sobol[:, 1], EQUATION)
    sides = torch.cat([_rows(torch.full_like(alpha, x), alpha, SIDE) for x, _ in model.equation.sides])
    values = torch.cat([value(alpha) for _, value in model.equation.sides])
    with torch.no_grad():
        model.noise[EQUATION] = model(inner).square().mean().sqrt()
        model.noise[SIDE] = (model(sides)[:, 0] - values).square().mean().sqrt()
    rows = torch.cat([_rows(data["x"], data["alpha"], MEASURED), inner, sides])
    outcomes = torch.cat([data["u"] / NOISE, torch.zeros(POINTS).double(), values / model.noise[SIDE]])
    return rows, outcomes[:, None]


def _rows(x: Tensor, alpha: Tensor, kind: int) -> Tensor:
    return torch.stack([x, alpha, torch.full_like(x, float(kind))], 1)
