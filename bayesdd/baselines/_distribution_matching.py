r"""Distribution matching: synthetic rows whose random features have the sums of the data's, label by label.

.. math:: \min_U \mathrm{E}_\psi \sum_c \Big\| \sum_{n \in c} \psi(z_n) - \sum_{m \in c} w_m \psi(u_m) \Big\|^2,

with psi a random ReLU network of the whitened row, drawn anew for every step. A label c here is a stratum: equal
labels, groups and patterns of missing entries, none of which move; real and counted outcomes are part of the row. The
likelihood is not used: the method is exact where psi spans the sufficient statistics (``depth=0`` spans the mean), and
elsewhere does not know which features the posterior needs. Cost per step: one network over all real rows, forwards
only.

Ours and not the original's: sums instead of means, all rows instead of batches (``batch=256`` is the original's), fully
connected networks, Adam.

Source: Zhao & Bilen, "Dataset condensation with distribution matching", WACV 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.baselines._moving import movable, moved, whitening
from bayesdd.data.distilled import Distilled
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.task import Task

BLOCK = 2048  # real rows that pass the network at once: their features stay in cache


def distribution_matching(
    task: Task,
    size: int,
    *,
    seed: int,
    iterations: int = 500,
    rate: float = 0.1,
    width: int = 64,
    depth: int = 1,
    batch: int | None = None,
    learn_weights: bool = False,
) -> Distilled:
    """Rows whose random features have the sums of the data's.

    Args:
        iterations: Steps of Adam, each with a network of its own.
        width: Width of the network.
        depth: Layers with ReLU; 0 gives random directions of the row itself.
        batch: Real rows per label and step, drawn with replacement; None for all.

    Raises:
        ValueError: No column can move.
    """
    problem, real, picked = movable(task, size, seed, hold=True)
    names = [name for name, kind in problem.coordinates.kinds.items() if kind.to_free is not None]
    if not names:
        raise Refusal(f"distribution_matching moves rows, but every column of {task.name} is held: choose real rows.")
    labels, own = real[picked].unique(return_inverse=True)
    # The rows that a label stands for: those with the label, unless there are more labels than synthetic rows.
    shares = torch.zeros(len(labels), dtype=torch.float64).index_add(0, own, problem.stored(problem.start)[1])
    white = whitening(task.data, names)
    inputs = white(task.data)
    members = [inputs[real == label] for label in labels]
    generator = torch.Generator().manual_seed(seed)

    def loss(vector: Tensor) -> Tensor:
        rows, weight = problem.stored(vector)
        network = _network(inputs.shape[1], width, depth, generator)
        theirs = torch.stack([_real_mean(network, rows, batch, generator) for rows in members]) * shares[:, None]
        ours = torch.zeros_like(theirs).index_add(0, own, network(white(rows)) * weight[:, None])
        return ((ours - theirs) ** 2).sum() / width

    return moved("distribution_matching", problem, loss, seed, iterations, rate, learn_weights)


def _network(inputs: int, width: int, depth: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Layers with weights of variance 2 / fan-in and biases of variance 1, each followed by ReLU; see ``depth``."""
    fans = [inputs] + [width] * max(0, depth - 1)
    layers = [
        (
            torch.randn(fan, width, generator=generator, dtype=torch.float64) * math.sqrt(2 / fan),
            torch.randn(width, generator=generator, dtype=torch.float64),
        )
        for fan in fans
    ]

    def features(rows: Tensor) -> Tensor:
        if depth == 0:
            return rows @ layers[0][0]
        for matrix, bias in layers:
            rows = torch.relu(rows @ matrix + bias)
        return rows

    return features


def _real_mean(
    network: Callable[[Tensor], Tensor], inputs: Tensor, batch: int | None, generator: torch.Generator
) -> Tensor:
    """Features averaged over real rows or a batch of them, shape ``(width,)``."""
    if batch is not None:
        inputs = inputs[torch.randint(len(inputs), (batch,), generator=generator)]
    return torch.stack([network(piece).sum(0) for piece in inputs.split(BLOCK)]).sum(0) / len(inputs)
