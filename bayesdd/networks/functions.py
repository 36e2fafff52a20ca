r"""Functions of the latents: draws of networks are judged by what they predict, not by their weights.

Weights of a network are not identified (units can be exchanged, signs flipped): two chains that agree on every
prediction differ in every weight. Hence :func:`values`, then :func:`bayesdd.posterior.arviz.function_diagnostics` and
:func:`coverage`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from bayesdd.numerics.refusal import Refusal
from bayesdd.task.program import running

Function = Callable[[Tensor], Tensor]
CHUNK = 256  # draws at once


def values(function: Function, draws: Tensor) -> Tensor:
    """A function of one draw at all draws.

    Args:
        function: ``(P,) -> (points,)``, fit for vmap.
        draws: Shape ``(..., P)``, such as ``(chains, draws, P)``.

    Returns:
        Shape ``(..., points)``.
    """
    with torch.no_grad(), running(draws.device):
        found: Tensor = vmap(function, chunk_size=CHUNK)(draws.flatten(0, -2))
    return found.reshape(*draws.shape[:-1], *found.shape[1:])


def linearised(function: Function, mode: Tensor) -> Function:
    """The function's tangent at a mode ``(P,)``: what draws of a Gauss-Newton Laplace approximation belong to.

    Source: Immer, Korzepa & Bauer, "Improving predictions of Bayesian neural nets via local linearization", 2021.
    """
    with running(mode.device):
        value, slope = function(mode), jacrev(function)(mode)

    def tangent(draw: Tensor) -> Tensor:
        found: Tensor = value + slope @ (draw - mode)
        return found

    return tangent


def coverage(predicted: Tensor, truth: Tensor, level: float = 0.9) -> tuple[float, float]:
    """Share of points whose truth lies within the central interval, and the intervals' mean width.

    Args:
        predicted: Predictive draws, shape ``(S, points)``; with noise of their own if the truth has noise.
        truth: Shape ``(points,)``.
        level: Probability of the interval.

    Raises:
        ValueError: A level that is no probability, or draws and truth at other numbers of points.
    """
    if not 0 < level < 1:
        raise Refusal(f"coverage needs a level between 0 and 1, got {level!r}.")
    if predicted.dim() != 2 or predicted.shape[1:] != truth.shape:
        raise Refusal(
            f"coverage needs draws (S, points) and the truth (points,), got {tuple(predicted.shape)} and "
            f"{tuple(truth.shape)}: join chains by .flatten(0, 1)."
        )
    probabilities = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=predicted.dtype, device=predicted.device)
    low, high = torch.quantile(predicted, probabilities, dim=0)
    inside = (truth >= low) & (truth <= high)
    return float(inside.double().mean()), float((high - low).mean())
