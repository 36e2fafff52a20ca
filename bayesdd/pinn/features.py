r"""Random features of the inputs, added to the fields of several networks.

A feature is :math:`\tanh(s\, w^\top (z - c))`, z in [-1, 1], with w standard normal, s between one and STEEPEST, and c
anywhere in the domain, so that every feature turns inside it.

Source: Chen, Chi, E & Yang, "Bridging traditional and machine learning-based algorithms for solving PDEs: the random
feature method", Journal of Machine Learning 2022.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.networks.jets import Index, Tape, series
from bayesdd.networks.mlp import Network

STEEPEST = 4.0


@dataclass(frozen=True, eq=False)
class Features:
    """M features of d inputs and what K networks make of them in O fields.

    Attributes:
        weight: Shape ``(d, M)``.
        bias: Shape ``(M,)``.
        out: Of the fields in their networks' units, ``(K, M, O)``.
    """

    weight: Tensor
    bias: Tensor
    out: Tensor

    @classmethod
    def drawn(cls, fields: Network, modes: int, count: int, generator: torch.Generator) -> Features:
        """Features of the inputs of a network, added to nothing so far."""
        inputs, outputs = len(fields.centre), len(fields.outputs)
        steep = torch.exp(math.log(STEEPEST) * torch.rand(count, generator=generator, dtype=torch.float64))
        weight = steep * torch.randn(inputs, count, generator=generator, dtype=torch.float64)
        centre = 2 * torch.rand(inputs, count, generator=generator, dtype=torch.float64) - 1
        return cls(weight, -(weight * centre).sum(0), torch.zeros(modes, count, outputs, dtype=torch.float64))

    def to(self, device: torch.device) -> Features:
        """The same on a device."""
        return Features(self.weight.to(device), self.bias.to(device), self.out.to(device))

    def hidden(self, z: Tensor, unit: Tensor, indices: tuple[Index, ...]) -> Tensor:
        """Taylor coefficients of the features: ``(C, N, M)``; see :func:`bayesdd.networks.jets.series`."""
        tape: Tape = []
        last = self.out[:1, :, :1], self.out.new_zeros(1, 1)
        series([(self.weight[None], self.bias[None]), last], z, unit, indices, tape)
        return tape[-1][0][0]

    def series(self, z: Tensor, unit: Tensor, indices: tuple[Index, ...]) -> Tensor:
        """Taylor coefficients of what is added: ``(K, C, N, O)``."""
        return self.hidden(z, unit, indices) @ self.out[:, None]
