"""Plain torch, as a user without any of this would write it: networks of any activation, trained by Adam on rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

RATE = 0.01  # of Adam, falling to zero by a cosine
Activation = Callable[[Tensor], Tensor]


def trained(
    z: Tensor,
    u: Tensor,
    weight: Tensor,
    *,
    hidden: tuple[int, ...],
    activation: Activation,
    count: int,
    steps: int,
) -> Callable[[Tensor], Tensor]:
    """Several networks at once, from the first weights of ``torch.nn.Linear``.

    Args:
        z: Inputs in [-1, 1], ``(M, d)``.
        u: Outcomes ``(M,)``; their mean and spread are those of the networks at the start.
        weight: Of each row in the mean squared error, ``(M,)``.
        hidden: Widths of the hidden layers.
        activation: Such as ``torch.tanh``.
        count: Networks.
        steps: Steps of Adam.

    Returns:
        Inputs ``(N, d)`` -> predictions of every network ``(count, N)``.
    """
    middle, unit = u.mean(), u.std().clamp_min(1e-12)
    layers = [_layer(count, *size) for size in itertools.pairwise((z.shape[1], *hidden, 1))]

    def values(at: Tensor) -> Tensor:
        h = at.expand(count, -1, -1)
        for depth, (slope, bias) in enumerate(layers):
            h = torch.baddbmm(bias, h, slope)
            h = activation(h) if depth < len(hidden) else h
        return middle + unit * h[..., 0]

    adam = torch.optim.Adam([one for layer in layers for one in layer], lr=RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        adam.zero_grad()
        # A sum over networks: each follows its own rows' error alone.
        (weight * (values(z) - u) ** 2).sum().div(weight.sum() * unit**2).backward()
        adam.step()
        falling.step()
    return lambda at: values(at).detach()


def _layer(count: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(inputs * outputs)
    drawn = torch.rand(count, inputs + 1, outputs, generator=generator, dtype=torch.float64)
    slope, bias = ((2 * drawn - 1) / inputs**0.5).split([inputs, 1], 1)
    return slope.clone().requires_grad_(True), bias.clone().requires_grad_(True)
