r"""Networks of a problem, the residuals that they leave of its terms, and their Jacobian.

Parameters theta are the weights of the network of the fields, those of unknown functions' networks, and unknown
constants in units of their priors: a priori all are N(0, 1).

A residual at a point depends on theta through the Taylor coefficients at that point alone. One backward pass to what
every layer makes of its input, :math:`\delta_l`, therefore gives the Jacobian of all rows: the derivative in the
weights of layer l is :math:`\sum_\gamma h_{l,\gamma} \delta_{l,\gamma}^\top`.

Networks with an anchor are linear: theta is then a step from there, and a field is the anchor's plus its slope along
the step. Equations stay as they are; a nonlinear one is nonlinear in such fields too.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayesdd.networks import jets, mlp
from bayesdd.networks.jets import Index, Tape, closure, factorial, series
from bayesdd.networks.mlp import Network
from bayesdd.pinn.features import Features
from bayesdd.pinn.names import State
from bayesdd.pinn.problem import Problem
from bayesdd.pinn.terms import Term

PRIOR_SPREAD = 2.0  # of a network's draws, in its unit: an unknown function's sd is twice its network's unit


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks of a problem, and where their weights stand in theta.

    Attributes:
        problem: The problem.
        fields: The network of all fields.
        functions: Those of unknown functions.
        anchor: Weights ``(S, P)`` around which the networks are linear, one row for every row of theta;
            None: theta are the weights themselves. Constants in theta are themselves, and in the anchor what they were.
        added: What is added to the fields of every row; None: nothing.
    """

    problem: Problem
    fields: Network
    functions: Mapping[str, Network]
    anchor: Tensor | None = None
    added: Features | None = None

    @classmethod
    def of(cls, problem: Problem, hidden: tuple[int, ...], outputs: tuple[tuple[float, float], ...]) -> Networks:
        """Networks of one shape that read every input in [-1, 1]; ``outputs``: middle and unit of every field."""

        def network(reads: tuple[str, ...], own: tuple[tuple[float, float], ...]) -> Network:
            ranges = [problem.ranges[name] for name in reads]
            centre = tuple((low + high) / 2 for low, high in ranges)
            return Network(centre, tuple((high - low) / 2 for low, high in ranges), hidden, outputs=own)

        functions = {}
        for name, reads in problem.names.functions.items():
            given: Any = problem.unknown[name]
            functions[name] = network(reads, ((given.mean, given.sd / PRIOR_SPREAD),))
        return cls(problem, network(problem.names.inputs, outputs), functions)

    @property
    def dim(self) -> int:
        """Length P of theta."""
        own = sum(network.dim for network in self.functions.values())
        return self.fields.dim + own + len(self.problem.names.unknown)

    def widened(self, theta: Tensor, more: int, generator: torch.Generator) -> Networks:
        """Networks with so many more units a layer, linear around the same functions.

        New units read all units below by weights drawn from the prior, and none reads them: the functions are those of
        theta ``(S, P)``.
        """
        layers = [
            _wider_layer(network, at, flat, more, generator)
            for network, _, whole in self.parts(theta).values()
            for at, flat in enumerate(mlp.by_layer(network, whole))
        ]
        constants = theta[:, self.dim - len(self.problem.names.unknown) :]
        functions = {name: _wider(network, more) for name, network in self.functions.items()}
        return Networks(self.problem, _wider(self.fields, more), functions, torch.cat([*layers, constants], 1))

    def linear(self, theta: Tensor) -> Tensor:
        """One where a parameter acts linearly on a field or function, or is a constant; zero at others, ``(P,)``."""
        found, used = torch.ones_like(theta[0]), 0
        for network, _, flat in self.parts(theta).values():
            inputs, outputs = network.widths[-1]
            found[used : used + flat.shape[1] - (inputs + 1) * outputs] = 0.0
            used += flat.shape[1]
        return found

    def unknowns(self) -> list[slice]:
        """Where each unknown's parameters stand behind those of the fields."""
        sizes = [network.dim for network in self.functions.values()] + [1] * len(self.problem.names.unknown)
        ends = list(itertools.accumulate(sizes))
        return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]

    def constants(self, theta: Tensor) -> dict[str, Tensor]:
        """Unknown constants in their own units, of theta ``(S, P)``: ``(S,)`` each."""
        names = self.problem.names.unknown
        z = theta[:, theta.shape[1] - len(names) :]
        found = {}
        for at, name in enumerate(names):
            mean, sd = self.problem.unknown[name]  # type: ignore[misc]  # functions are not among these names
            found[name] = mean + sd * z[:, at]
        return found

    def parts(self, theta: Tensor) -> dict[str, tuple[Network, tuple[str, ...], Tensor]]:
        """Of every network, by name (empty: the fields): itself, what it reads, and its weights ``(S, dim)``."""
        sizes = [network.dim for network, _ in self.each.values()]
        flat = theta.split([*sizes, theta.shape[1] - sum(sizes)], 1)
        return {name: (*both, own) for (name, both), own in zip(self.each.items(), flat, strict=False)}

    @property
    def each(self) -> dict[str, tuple[Network, tuple[str, ...]]]:
        """Every network by name (empty: the fields), and what it reads."""
        names = self.problem.names
        own = {name: (network, names.functions[name]) for name, network in self.functions.items()}
        return {"": (self.fields, names.inputs), **own}


class Evaluation:
    """A term's residuals at theta ``(S, P)``, and what is needed for their Jacobian.

    Where the networks' ``layers`` are given by name, theta are the unknown constants alone, ``(S, C)``. They are not to
    be made one vector first: the second derivative of that fills such a vector for every layer.
    """

    def __init__(
        self,
        networks: Networks,
        term: Term,
        theta: Tensor,
        *,
        taped: bool = False,
        layers: Mapping[str, mlp.Layers] | None = None,
    ) -> None:
        self.networks, self.term, self.theta = networks, term, theta
        points = term.places
        self.count, self.draws = len(next(iter(points.values()))), len(theta)
        names = networks.problem.names
        self.tapes: dict[str, Tape] = {}
        self.values: dict[str, tuple[Tensor, tuple[Index, ...], Network, tuple[str, ...]]] = {}
        anchors = None if networks.anchor is None else networks.parts(networks.anchor.to(theta.device))
        parts = {} if layers is not None else networks.parts(theta)
        for name, (network, reads) in networks.each.items():
            if name not in term.asked:
                continue
            # A function reads some of the inputs; its indices are those of all of them.
            axes = [names.inputs.index(read) for read in reads]
            indices = closure((tuple(index[axis] for axis in axes) for index in term.asked[name]), len(axes))
            z, unit = mlp.own_coordinates(network, torch.stack([points[read] for read in reads], 1))
            tape: Tape | None = self.tapes.setdefault(name, []) if taped else None
            if anchors is None:
                own = mlp.split(network, parts[name][2]) if layers is None else layers[name]
                made = series(own, z, unit, indices, tape)
            else:
                made = _linear_series(network, anchors[name][2], parts[name][2], z, unit, indices, tape)
            if not name and networks.added is not None:
                made = made + networks.added.series(z, unit, indices)
            self.values[name] = (made, indices, network, reads)
        self.unknown = {
            name: value[:, None].expand(-1, self.count).reshape(-1) for name, value in networks.constants(theta).items()
        }
        known = {name: self._repeated(column) for name, column in points.items()}
        found = term.function(State(known, self._field), State(self.unknown, self._constant))
        self.parts = [value.expand(self.draws * self.count) for value in found]

    def _repeated(self, column: Tensor) -> Tensor:
        return column.expand(self.draws, -1).reshape(-1)

    def _field(self, name: str) -> Tensor:
        output, index = self.networks.problem.names.field(name)
        return self._of("", index, self.networks.problem.names.outputs.index(output))

    def _constant(self, name: str) -> Tensor:
        base, index = self.networks.problem.names.constant(name)
        if base in self.networks.problem.constants:
            return self.theta.new_tensor(float(self.networks.problem.constants[base]))
        return self._of(base, index, 0)

    def _of(self, name: str, index: Index, output: int) -> Tensor:
        values, indices, network, reads = self.values[name]
        inputs = self.networks.problem.names.inputs
        own = tuple(index[inputs.index(read)] for read in reads)
        middle, unit = network.outputs[output]
        value = unit * factorial(own) * values[:, indices.index(own), :, output]
        return (value + middle if not sum(own) else value).reshape(-1)

    def residuals(self) -> Tensor:
        """Shape ``(S, E, N)``."""
        found = torch.stack([part.reshape(self.draws, self.count) for part in self.parts], 1)
        found = _differences(found, self.term)
        return found if self.term.observed is None else found - self.term.observed.T

    def jacobian(self) -> Tensor:
        """Of the residuals in theta, ``(S, E, N, P)``."""
        found = [self._slopes(part) for part in self.parts]
        return _differences(torch.stack(found, 1), self.term)

    def of_features(self, features: Features) -> Tensor:
        """Derivatives of the residuals in what features would add to the fields, ``(S, E, N, M * O)``; needs a tape."""
        shape = (self.draws, self.count, features.out[0].numel())
        if "" not in self.values:
            return torch.stack([part.new_zeros(shape) for part in self.parts], 1)
        _, indices, network, reads = self.values[""]
        places, made = self.term.places, self.tapes[""][-1][1]
        z, unit = mlp.own_coordinates(network, torch.stack([places[read] for read in reads], 1))
        hidden, found = features.hidden(z, unit, indices), []
        for part in self.parts:
            (slope,) = torch.autograd.grad(part.sum(), made, retain_graph=True, materialize_grads=True)
            found.append(torch.einsum("cnm,scno->snmo", hidden, slope).flatten(2))
        return _differences(torch.stack(found, 1), self.term)

    def _slopes(self, part: Tensor) -> Tensor:
        made = [a for tape in self.tapes.values() for _, a in tape]
        wanted = [*made, *self.unknown.values()]
        slopes = torch.autograd.grad(part.sum(), wanted, retain_graph=True, allow_unused=True)
        of, columns = dict(zip(map(id, wanted), slopes, strict=True)), []
        for name, (network, _, _) in self.networks.parts(self.theta).items():
            layers = self.tapes.get(name, [])
            if not layers or of[id(layers[-1][1])] is None:
                columns.append(part.new_zeros(self.draws, self.count, network.dim))
                continue
            for (h, a), factor in zip(layers, network.factors, strict=True):
                slope = of[id(a)]
                assert slope is not None  # a later layer has one
                weight = factor * (h.detach().permute(0, 2, 3, 1) @ slope.permute(0, 2, 1, 3))
                columns += [weight.flatten(2), slope[:, 0]]
        for name, value in self.unknown.items():
            slope = of[id(value)]
            sd = self.networks.problem.unknown[name][1]  # type: ignore[index]  # a constant's prior
            slope = torch.zeros_like(value) if slope is None else slope
            columns.append(sd * slope.reshape(self.draws, self.count, 1))
        return torch.cat(columns, 2)


def residuals(networks: Networks, terms: Sequence[Term], theta: Tensor) -> list[Tensor]:
    """Residuals of all terms at theta ``(S, P)``: one ``(S, N)`` for every residual of every term."""
    return [part for term in terms for part in Evaluation(networks, term, theta).residuals().unbind(1)]


def linearised(networks: Networks, terms: Sequence[Term], theta: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Residuals ``(S, N)`` and their Jacobians ``(S, N, P)``, in the order of :func:`residuals`."""
    values, slopes = [], []
    with torch.enable_grad():
        theta = theta.detach().requires_grad_(True)
        for term in terms:
            found = Evaluation(networks, term, theta, taped=True)
            values += [value.detach() for value in found.residuals().unbind(1)]
            slopes += list(found.jacobian().unbind(1))
    return values, slopes


def _linear_series(
    network: Network,
    anchor: Tensor,
    step: Tensor,
    z: Tensor,
    unit: Tensor,
    indices: tuple[Index, ...],
    tape: Tape | None,
) -> Tensor:
    """Taylor coefficients at the anchor plus their slope along the step; the tape is the anchor's."""
    made, along = jets.linearised(mlp.split(network, anchor), mlp.split(network, step), z, unit, indices)
    if tape is None:
        return made + along
    there = anchor.detach().requires_grad_(True)
    return along.detach() + series(mlp.split(network, there), z, unit, indices, tape)


def _wider(network: Network, more: int) -> Network:
    return replace(network, hidden=tuple(units + more for units in network.hidden))


def _wider_layer(network: Network, at: int, flat: Tensor, more: int, generator: torch.Generator) -> Tensor:
    """Weights and biases of a layer ``(S, n)`` among those of the wider network's layer ``(S, N)``."""
    (inputs, outputs), wider = network.widths[at], _wider(network, more)
    draws = torch.randn(len(flat), wider.widths[at][0] + 1, wider.widths[at][1], generator=generator).to(flat)
    draws[:, :, :outputs] = 0.0
    draws[:, :inputs, :outputs] = flat[:, :-outputs].unflatten(1, (inputs, outputs))
    draws[:, :inputs, :outputs] *= network.factors[at] / wider.factors[at]
    draws[:, -1, :outputs] = flat[:, -outputs:]
    return draws.flatten(1)


def _differences(values: Tensor, term: Term) -> Tensor:
    """Of a periodic condition: the first side minus the other, of values ``(S, E, 2 N, ...)``; others as they are."""
    return values if term.twin is None else values[:, :, : term.count] - values[:, :, term.count :]
