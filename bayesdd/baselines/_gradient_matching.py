r"""Gradient matching (dataset condensation): synthetic rows whose gradient is that of the data along training paths.

.. math:: \min_U \mathrm{E}_{\theta_0} \sum_t \mathrm{dist}(\nabla l_U(\theta_t), \nabla l_D(\theta_t)),
    \qquad \theta_{t+1}: \text{ a few ascents of } \log p(\theta) + l_U(\theta) \text{ from } \theta_t.

With the squared norm of sums it is Fisher's divergence over the points visited, zero if and only if both gradients
agree there. Cost per match: one gradient pass over the real rows, one double backward pass over the synthetic ones.

Ours and not the original's: sums instead of means (means lose N, and with it the posterior's width), all rows instead
of batches, gradients in nats per standard deviation, a distance relative to the real gradient (``relative_norm``), Adam
in whitened coordinates of the rows instead of momentum on pixels, ascents by line search, which need no learning rate.
``distance=cosine, batch=256`` is nearest to the original; blind to scale, it says nothing of the weights.

Source: Zhao, Mopuri & Bilen, "Dataset condensation with gradient matching", ICLR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.baselines._moving import movable, moved
from bayesdd.baselines._training import STARTS, scales
from bayesdd.data.columns import Columns
from bayesdd.data.distilled import Distilled
from bayesdd.density.density import BLOCK, Density
from bayesdd.distillation.stratified import strata
from bayesdd.task.starts import finite_starts
from bayesdd.task.task import Task

Distance = Callable[[Tensor, Tensor, Task], Tensor]

LADDER = 2.0 ** -torch.arange(16, dtype=torch.float64)  # an ascent tries these moves of the coordinate that moves most


def squared_norm(ours: Tensor, theirs: Tensor, task: Task) -> Tensor:
    """Squared norm of the difference of gradients ``(S, P)``, mean over the points."""
    return ((ours - theirs) ** 2).sum(1).mean()


def relative_norm(ours: Tensor, theirs: Tensor, task: Task) -> Tensor:
    """Squared norm of the difference, over the real gradient's plus P (its mean over the posterior), mean over points.

    Without the divisor points far from the mode, where gradients are largest, decide alone.
    """
    return (((ours - theirs) ** 2).sum(1) / ((theirs**2).sum(1) + theirs.shape[1])).mean()


def cosine(ours: Tensor, theirs: Tensor, task: Task) -> Tensor:
    """One minus the cosine between gradients ``(S, P)``, summed over latent sites, mean over the points.

    The original takes a cosine per row of each layer's matrix and none for vectors, which would leave nothing of most
    models: here each latent site has one.
    """
    total = ours.new_zeros(len(ours))
    for site in task.structure.sites:
        a, b = ours[:, site.start : site.stop], theirs[:, site.start : site.stop]
        total = total + 1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)
    return total.mean()


def gradient_matching(
    task: Task,
    size: int,
    *,
    seed: int,
    iterations: int = 1000,
    rate: float = 0.05,
    points: int = 4,
    matches: int = 10,
    ascents: int = 5,
    batch: int | None = None,
    distance: Distance = relative_norm,
    by_label: bool = True,
    learn_weights: bool = False,
) -> Distilled:
    """Rows whose gradients match those of the data.

    Args:
        iterations: Matches, each followed by one step of Adam.
        points: Training paths followed at once.
        matches: Matches on a path before it starts anew.
        ascents: Ascents of the synthetic log joint between matches.
        batch: Real rows a match (a label, with ``by_label``), drawn with replacement; None for all.
        distance: From the synthetic rows' gradients ``(S, P)``, in nats per standard deviation, the real rows' and the
            task.
        by_label: Hold labels, and match each on its own.
    """
    problem, _, picked = movable(task, size, seed, hold=by_label)
    observed = {site.column for site in task.structure.observed} if by_label else set()
    held = {name: kind for name, kind in problem.coordinates.kinds.items() if name in observed and not kind.to_free}
    real = strata({name: task.data[name] for name in held}, held) if held else torch.zeros(task.size, dtype=torch.int64)
    labels = real[picked].unique().tolist()
    columns = [{name: column[real == label] for name, column in task.data.items()} for label in labels]
    generator = torch.Generator().manual_seed(seed)
    pool = finite_starts(task.program, task.data, STARTS, seed)
    spread, _ = scales(Density([(task, task.data, None)]), pool[0])
    draws, done = pool, 0

    def loss(vector: Tensor) -> Tensor:
        nonlocal draws, done
        rows, weight = problem.hard(vector)
        if done % matches == 0:
            draws = pool[torch.randint(STARTS, (points,), generator=generator)]
        else:
            still = {name: column.detach() for name, column in rows.items()}
            draws = _ascended(task, still, weight.detach(), draws, ascents)
        done += 1
        own = real[picked].repeat_interleave(len(weight) // size)
        leaf = draws.detach().requires_grad_(True)
        by_row = task.log_likelihood(rows, leaf) * weight
        total = weight.new_zeros(())
        for label, mine in zip(labels, columns, strict=True):
            (ours,) = torch.autograd.grad(by_row[:, own == label].sum(), leaf, create_graph=True)
            theirs = _real_gradient(task, mine, draws, batch, generator)
            total = total + distance(ours * spread, theirs * spread, task)
        return total

    return moved("gradient_matching", problem, loss, seed, iterations, rate, learn_weights)


def _ascended(task: Task, rows: Columns, weight: Tensor, draws: Tensor, ascents: int) -> Tensor:
    """Points after steps up the gradient of the synthetic log joint, each the best on a ladder of lengths."""
    count, dim = draws.shape
    for _ in range(ascents):
        value, gradient = task.joint_gradient(rows, weight, draws)
        direction = gradient / gradient.abs().amax(1, keepdim=True).clamp_min(1e-300)
        trials = draws[:, None] + LADDER[:, None] * direction[:, None]
        with torch.no_grad():
            flat = trials.reshape(-1, dim)
            reached = (task.log_prior(flat) + task.log_likelihood(rows, flat) @ weight).reshape(count, -1)
        best, at = reached.nan_to_num(-math.inf, -math.inf, -math.inf).max(1)
        draws = torch.where((best > value)[:, None], trials[torch.arange(count), at], draws)
    return draws


def _real_gradient(task: Task, rows: Columns, draws: Tensor, batch: int | None, generator: torch.Generator) -> Tensor:
    """Gradient of the real rows' log-likelihood, or what a batch of them says it is; shape ``(S, P)``."""
    count = len(next(iter(rows.values())))
    if batch is not None and batch < count:
        picked = torch.randint(count, (batch,), generator=generator)
        scale = torch.full((batch,), count / batch, dtype=torch.float64)
        return task.likelihood_gradient({name: column[picked] for name, column in rows.items()}, scale, draws)[1]
    total = torch.zeros_like(draws)
    for start in range(0, count, BLOCK):
        piece = {name: column[start : start + BLOCK] for name, column in rows.items()}
        ones = draws.new_ones(len(next(iter(piece.values()))))
        total += task.likelihood_gradient(piece, ones, draws)[1]
    return total
