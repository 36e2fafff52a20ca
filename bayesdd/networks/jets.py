r"""Derivatives of a tanh network in its inputs, of any order and mixed, as truncated Taylor series.

Near a point z the network is :math:`u(z + h) = \sum_\gamma u_\gamma h^\gamma`, with multi-indices :math:`\gamma` in a
set that holds every index below its own; the derivative is :math:`\gamma!\, u_\gamma`. An affine layer acts on each
coefficient alone. Through :math:`h = \tanh a` coefficients go by its differential equation
:math:`\partial_i h = g\, \partial_i a`, :math:`g = 1 - h^2`: for any axis i with :math:`\gamma_i > 0`

.. math:: \gamma_i h_\gamma = \sum_{\alpha \le \gamma} \alpha_i a_\alpha g_{\gamma - \alpha}, \qquad
          g_\gamma = - \sum_{\alpha + \beta = \gamma} h_\alpha h_\beta .

Only what is asked for is computed: ``u_xx`` and ``u_yy`` cost five coefficients, ``u_xxxx`` five, ``u_xt`` four. One
matrix product a layer serves them all, and no derivative is nested in another.

Source: Griewank & Walther, "Evaluating derivatives", SIAM 2008, chapter 13.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

Index = tuple[int, ...]  # how often along each input
Tape = list[tuple[Tensor, Tensor]]  # what every layer was given and what it made of it, before tanh
Pairs = tuple[tuple[int, int, float], ...]


def closure(wanted: Iterable[Index], inputs: int) -> tuple[Index, ...]:
    """The indices and all below them, in the order of their sums; the value comes first."""
    found = {(0,) * inputs}
    for index in wanted:
        found.update(itertools.product(*(range(order + 1) for order in index)))
    return tuple(sorted(found, key=lambda index: (sum(index), index)))


def factorial(index: Index) -> int:
    """By what a coefficient is multiplied to be a derivative."""
    return math.prod(math.factorial(order) for order in index)


def series(
    layers: Sequence[tuple[Tensor, Tensor]],
    z: Tensor,
    unit: Tensor,
    indices: tuple[Index, ...],
    tape: Tape | None = None,
) -> Tensor:
    """Taylor coefficients of S networks at N points.

    Args:
        layers: Weights ``(S, inputs, outputs)`` and biases ``(S, outputs)`` of every layer.
        z: Points in the networks' own coordinates, ``(N, inputs)``.
        unit: Derivative of each coordinate with respect to the input that it stands for, ``(inputs,)``.
        indices: As :func:`closure` makes them.
        tape: A list to which every layer appends what it was given ``(S, C, N, inputs)`` and its affine result.

    Returns:
        Shape ``(S, C, N, outputs)``, C the number of indices.
    """
    a = _inputs(z, unit, indices).expand(len(layers[0][0]), -1, -1, -1)
    for at, (weight, bias) in enumerate(layers):
        h = _tanh(a, indices) if at else a
        a = (h.flatten(1, 2) @ weight).unflatten(1, h.shape[1:3])
        a = torch.cat([a[:, :1] + bias[:, None, None], a[:, 1:]], 1)
        if tape is not None:
            tape.append((h, a))
    return a


def linearised(
    layers: Sequence[tuple[Tensor, Tensor]],
    steps: Sequence[tuple[Tensor, Tensor]],
    z: Tensor,
    unit: Tensor,
    indices: tuple[Index, ...],
) -> tuple[Tensor, Tensor]:
    """The same coefficients, and their derivatives where weights and biases move along ``steps``, of the same shapes.

    The way along the steps is one more input, in which the series has the order one.
    """
    count, still = len(indices), _inputs(z, unit, indices)
    both = tuple((*index, order) for order in (0, 1) for index in indices)
    a = torch.cat([still, torch.zeros_like(still)]).expand(len(layers[0][0]), -1, -1, -1)
    for at, ((weight, bias), (turn, shift)) in enumerate(zip(layers, steps, strict=True)):
        h = _tanh(a, both) if at else a
        a = (h.flatten(1, 2) @ weight).unflatten(1, h.shape[1:3])
        moved = a[:, count:] + (h[:, :count].flatten(1, 2) @ turn).unflatten(1, (count, len(z)))
        a = torch.cat(
            [a[:, :1] + bias[:, None, None], a[:, 1:count], moved[:, :1] + shift[:, None, None], moved[:, 1:]], 1
        )
    return a[:, :count], a[:, count:]


def _inputs(z: Tensor, unit: Tensor, indices: tuple[Index, ...]) -> Tensor:
    """Points themselves, then their derivatives: one row of the unit for a first one, zero for the others."""
    slopes = torch.diag(unit)
    own = [slopes[index.index(1)].expand_as(z) if sum(index) == 1 else torch.zeros_like(z) for index in indices[1:]]
    return torch.stack([z, *own])


def _tanh(a: Tensor, indices: tuple[Index, ...]) -> Tensor:
    value = torch.tanh(a[:, 0])
    if len(indices) == 1:
        return value[:, None]
    h, g = [value], [1 - value * value]
    for of_h, of_g in _products(indices):
        h.append(_sum([factor * a[:, i] * g[j] for i, j, factor in of_h]))
        if of_g:
            g.append(-_sum([factor * h[i] * h[j] for i, j, factor in of_g]))
        else:
            g.append(h[-1])  # above no other index: never read
    return torch.stack(h, 1)


def _sum(terms: list[Tensor]) -> Tensor:
    found = terms[0]
    for term in terms[1:]:
        found = found + term
    return found


@functools.cache
def _products(indices: tuple[Index, ...]) -> tuple[tuple[Pairs, Pairs], ...]:
    """For every index but the first: the products that make its coefficient of h, and of g where another needs it."""
    place, found = {index: at for at, index in enumerate(indices)}, []
    needed = {
        tuple(c - b for c, b in zip(index, below, strict=True))
        for index in indices
        for below in itertools.product(*(range(order + 1) for order in index))
        if sum(below)
    }
    for index in indices[1:]:
        axis = next(i for i, order in enumerate(index) if order)
        of_h: list[tuple[int, int, float]] = []
        of_g: dict[tuple[int, int], float] = {}
        for below in itertools.product(*(range(order + 1) for order in index)):
            rest = tuple(c - b for c, b in zip(index, below, strict=True))
            if below[axis]:
                of_h.append((place[below], place[rest], below[axis] / index[axis]))
            if index in needed:
                one, other = place[below], place[rest]
                pair = (min(one, other), max(one, other))
                of_g[pair] = of_g.get(pair, 0.0) + 1.0
        found.append((tuple(of_h), tuple((i, j, factor) for (i, j), factor in of_g.items())))
    return tuple(found)
