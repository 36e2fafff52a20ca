"""A physics-informed network by DeepXDE, on its torch backend: Adam, then L-BFGS, as its manual has it.

Source: Lu, Meng, Mao & Karniadakis, "DeepXDE: a deep learning library for solving differential equations", SIAM Review
2021.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studies.pinn_ood.cell import Measured, tensors
from studies.surrogates import POINTS, SIDES, Equation

RATE = 1e-3  # of Adam, as in all of its examples
SHARE = 0.5  # of the seconds, Adam's
MANY = 10**7  # iterations: the clock ends them
LOOKED = 20  # iterations of L-BFGS between looks at it


def solved(
    measured: Measured, equation: Equation, hidden: tuple[int, ...], seconds: float
) -> tuple[Callable[[dict[str, np.ndarray]], np.ndarray], float]:
    """Points -> u of a network that was trained for so many seconds of the processor; and how many they became."""
    os.environ.setdefault("DDE_BACKEND", "pytorch")
    before = torch.get_default_dtype()
    with contextlib.redirect_stdout(io.StringIO()), torch.random.fork_rng():
        import deepxde

        try:
            deepxde.config.set_default_float("float64")
            deepxde.config.set_random_seed(measured.seed)
            deepxde.optimizers.set_LBFGS_options(maxiter=MANY)
            deepxde.optimizers.config.LBFGS_options |= {"iter_per_step": LOOKED, "fun_per_step": 2 * LOOKED}
            model = _model(deepxde, measured, equation, hidden)
            begin = time.process_time()
            for optimizer, rate, end in (("adam", RATE, SHARE * seconds), ("L-BFGS", None, seconds)):
                model.compile(optimizer, lr=rate, verbose=0)
                clock = _clock(deepxde, begin + end)
                model.train(iterations=MANY if rate else None, callbacks=[clock], display_every=MANY, verbose=0)
            used = time.process_time() - begin
        finally:
            deepxde.config.set_default_float("float32")
            torch.set_default_dtype(before)
        return lambda points: _predicted(model, points), used


def _predicted(model: Any, points: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        found: Tensor = model.net(torch.from_numpy(np.stack([points["x"], points["alpha"]], 1)))
    return found[:, 0].numpy()


def _model(deepxde: Any, measured: Measured, equation: Equation, hidden: tuple[int, ...]) -> Any:
    """The equation on a rectangle of x and alpha, values at both sides, and the measurements."""
    (low, high), (least, most) = (measured.problem.ranges[name] for name in ("x", "alpha"))

    def residual(z: Tensor, u: Tensor) -> Tensor:
        slope = deepxde.grad.jacobian(u, z, i=0, j=0)
        bend = deepxde.grad.hessian(u, z, i=0, j=0)
        return equation.residual(z[:, :1], u, slope, bend)

    def fixed(points: np.ndarray, values: Tensor) -> Any:
        return deepxde.icbc.PointSetBC(points, values.numpy()[:, None])

    alpha = torch.linspace(least, most, SIDES, dtype=torch.float64)
    known = [fixed(np.stack([np.full(SIDES, x), alpha.numpy()], 1), value(alpha)) for x, value in equation.sides]
    data = measured.data
    known.append(fixed(np.stack([data["x"], data["alpha"]], 1), tensors(data)["u"]))
    rectangle = deepxde.geometry.Rectangle([low, least], [high, most])
    problem = deepxde.data.PDE(rectangle, residual, known, num_domain=POINTS, train_distribution="Sobol")
    net = deepxde.nn.FNN([2, *hidden, 1], "tanh", "Glorot normal")
    net.apply_feature_transform(lambda z: measured.stacked({"x": z[:, 0], "alpha": z[:, 1]}))
    return deepxde.Model(problem, net)


def _clock(deepxde: Any, end: float) -> Any:
    """A callback that ends the training at a reading of the processor's clock."""

    class Clock(deepxde.callbacks.Callback):
        def on_epoch_end(self) -> None:
            self.model.stop_training = time.process_time() >= end

    return Clock()
