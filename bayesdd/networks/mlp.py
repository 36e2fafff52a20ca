r"""A fully connected tanh network in Pyro statements; its derivatives in the inputs: :mod:`bayesdd.networks.jets`.

.. math::
    h_0 = (z - c) / r, \qquad h_l = \tanh\left(\frac{s}{\sqrt{n_l}} W_l^\top h_{l-1} + b_l\right), \qquad
    u = \frac{s}{\sqrt{n_L}} W_L^\top h_{L-1} + b_L, \qquad W, b \sim N(0, 1).

The prior is N(0, s^2 / n) on the weights of a layer of n inputs: sums of n terms keep their size, so that functions
drawn from the prior neither grow nor flatten with the width. The factor stands outside and weights are in units of
their own prior standard deviation, so that samplers and optimisers need no scale for each layer. With s = 2 and inputs
in [-1, 1] functions have a spread of 1.5 to 2 and turn over a few times across the domain: solutions of order one.

Source of the prior: Neal, "Bayesian Learning for Neural Networks", 1996, chapter 2.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesdd.numerics.refusal import Refusal

Layers = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Network:
    """A network's shape and prior.

    Attributes:
        centre: Middle of each input's range, in the input's own units.
        radius: Half of each range.
        hidden: Widths of the hidden layers.
        spread: Factor s of the prior; one number, or one a layer.
        outputs: Middle and unit of every output, in its own units.
        unidentified: True of every network: hidden units can change places, and signs.
    """

    unidentified: ClassVar[bool] = True

    centre: tuple[float, ...]
    radius: tuple[float, ...]
    hidden: tuple[int, ...] = (16, 16)
    spread: float | tuple[float, ...] = 2.0
    outputs: tuple[tuple[float, float], ...] = ((0.0, 1.0),)

    def __post_init__(self) -> None:
        if len(self.centre) != len(self.radius) or not self.centre:
            raise Refusal(f"Network needs as many centres as radii, at least one, got {self.centre} and {self.radius}.")
        if not all(radius > 0 for radius in self.radius):
            raise Refusal(f"Network needs positive radii, got {self.radius}: leave out an input that is constant.")
        if not self.hidden or min(self.hidden) < 1:
            raise Refusal(f"Network needs hidden layers of at least one unit, got hidden={self.hidden}.")
        if isinstance(self.spread, tuple) and len(self.spread) != len(self.hidden) + 1:
            raise Refusal(f"Network of {len(self.hidden) + 1} layers got {len(self.spread)} spreads: one a layer.")

    @property
    def widths(self) -> list[tuple[int, int]]:
        """Inputs and outputs of every layer."""
        sizes = [len(self.centre), *self.hidden, len(self.outputs)]
        return list(itertools.pairwise(sizes))

    @property
    def factors(self) -> list[float]:
        """What multiplies every layer's weights: ``s / sqrt(inputs)``."""
        spread = self.spread if isinstance(self.spread, tuple) else (self.spread,) * len(self.widths)
        return [s / math.sqrt(inputs) for s, (inputs, _) in zip(spread, self.widths, strict=True)]

    @property
    def dim(self) -> int:
        """Number of weights and biases."""
        return sum(inputs * outputs + outputs for inputs, outputs in self.widths)


def sample(network: Network, prefix: str = "") -> Layers:
    """Latent sites ``weight_0`` (inputs, outputs), ``bias_0`` (outputs,), ``weight_1``, ...; factors applied.

    ``prefix`` stands before their names.
    """
    found = []
    for at, (shape, factor) in enumerate(zip(network.widths, network.factors, strict=True)):
        weight = pyro.sample(f"{prefix}weight_{at}", dist.Normal(0.0, 1.0).expand(shape).to_event(2))
        bias = pyro.sample(f"{prefix}bias_{at}", dist.Normal(0.0, 1.0).expand(shape[1:]).to_event(1))
        found.append((factor * weight, bias))
    return found


def split(network: Network, flat: Tensor) -> Layers:
    """As :func:`sample`, from flat vectors of all weights and biases in the order of the sites, ``(..., dim)``."""
    # One operation whose derivative is one: that of a slice is as long as all of them.
    parts = iter(flat.split([size for inputs, outputs in network.widths for size in (inputs * outputs, outputs)], -1))
    return [
        (factor * next(parts).unflatten(-1, shape), next(parts))
        for shape, factor in zip(network.widths, network.factors, strict=True)
    ]


def by_layer(network: Network, flat: Tensor) -> tuple[Tensor, ...]:
    """Weights and biases of every layer, still flat, of ``(S, dim)``: ``(S, inputs * outputs + outputs)`` each."""
    found: tuple[Tensor, ...] = flat.split([inputs * outputs + outputs for inputs, outputs in network.widths], 1)
    return found


def inputs(network: Network, x: Tensor, alpha: Tensor | float) -> Tensor:
    """What the network reads: x ``(N, d)`` alone, or with alpha ``(N,)`` behind it where it has one input more."""
    if x.shape[-1] == len(network.centre):
        return x
    return torch.cat([x, torch.as_tensor(alpha, dtype=x.dtype).expand(len(x))[:, None]], -1)


def value(network: Network, layers: Layers, z: Tensor) -> Tensor:
    """The network at inputs z ``(N, inputs)``: shape ``(N,)``, or ``(N, outputs)`` where it has several."""
    h, _ = own_coordinates(network, z)
    for at, (weight, bias) in enumerate(layers):
        h = (torch.tanh(h) if at else h) @ weight + bias
    middle, unit = _constant(network.outputs, h).unbind(1)
    found: Tensor = middle + unit * h
    return found[:, 0] if len(network.outputs) == 1 else found


def own_coordinates(network: Network, z: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs z ``(N, inputs)`` in [-1, 1], and the derivative of each such coordinate in its input, ``(inputs,)``."""
    radius = _constant(network.radius, z)
    return (z - _constant(network.centre, z)) / radius, 1 / radius


def _constant(numbers: tuple[Any, ...], like: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=like.dtype, device=like.device)
