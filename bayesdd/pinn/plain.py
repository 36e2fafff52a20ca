"""The mean of a surrogate's networks as a plain module of torch."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from bayesdd.networks import jets, mlp
from bayesdd.networks.jets import closure
from bayesdd.pinn.features import Features
from bayesdd.pinn.residuals import Networks


class Plain(torch.nn.Module):
    """Mean of a surrogate's networks, in plain torch: inputs and parameters in their own units, in order.

    ``weights`` are those of the networks that the search found and widened, ``steps`` the steps from there; features of
    the inputs are added.
    """

    def __init__(self, networks: Networks, theta: Tensor) -> None:
        super().__init__()
        self.network = networks.fields
        assert networks.anchor is not None  # a surrogate's networks have one
        self.weights, self.steps = (
            torch.nn.Parameter(some[:, : self.network.dim].clone()) for some in (networks.anchor, theta)
        )
        assert networks.added is not None
        for field in fields(networks.added):
            self.register_buffer(field.name, getattr(networks.added, field.name).clone())

    def forward(self, z: Tensor) -> Tensor:
        """``(N, inputs and parameters)`` -> ``(N, outputs)``."""
        network = self.network
        z, unit = mlp.own_coordinates(network, z)
        only = closure((), len(unit))
        value, along = jets.linearised(mlp.split(network, self.weights), mlp.split(network, self.steps), z, unit, only)
        middle, scale = z.new_tensor(network.outputs).unbind(1)
        added = Features(*(self.get_buffer(field.name) for field in fields(Features))).series(z, unit, only)
        found: Tensor = middle + scale * (value + along + added)[:, 0].mean(0)
        return found
