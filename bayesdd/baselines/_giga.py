r"""GIGA: greedy iterative geodesic ascent to the full data's log-likelihood, on the sphere of log-likelihood vectors.

With v_n the log-likelihood of row n at draws of the full posterior, centred over the draws, ``L = sum_n v_n`` and ``x =
sum_n w_n v_n``, a Hilbert coreset minimises ``|L - x|`` over at most M positive weights. GIGA compares directions only:
each step takes the row whose geodesic from ``x / |x|`` points best towards ``L / |L|``, goes to the nearest point on it
(both closed forms), and in the end the length of x is set to the optimum,

.. math:: w \leftarrow w \, \langle x, L \rangle / \|x\|^2.

The error falls geometrically in M at first, but only in the directions that the S draws span. Cost: one Laplace fit, N
x S log-likelihoods, 8 N S bytes, and M products with the N x S matrix.

Source: Campbell & Broderick, "Bayesian coreset construction via greedy iterative geodesic ascent", ICML 2018; the
vectors: Campbell & Broderick, "Automated scalable Bayesian inference via Hilbert coresets", JMLR 2019.
"""

from __future__ import annotations

import torch
from scipy.optimize import nnls
from torch import Tensor

from bayesdd.baselines._parts import checked, hilbert_vectors, weighted_rows
from bayesdd.data.distilled import Distilled
from bayesdd.task.task import Task

ALIGNED = 1e-14  # squared sine below which two directions count as one (the authors' constant)


def giga(
    task: Task, size: int, *, seed: int, particles: int = 500, draws: Tensor | None = None, refit: bool = False
) -> Distilled:
    """Greedy iterative geodesic ascent.

    Args:
        size: Number M of steps, each of which adds or reweighs one row: at most M rows come back.
        refit: Whether to solve for the weights of the chosen rows again, by non-negative least squares; the authors'
            code offers it as a call of its own.
    """
    size = checked(task, size)
    generator = torch.Generator().manual_seed(seed)
    found = hilbert_vectors(task, particles, draws, generator, seed, "giga")
    weight = geodesic_ascent(found, size)
    if refit:
        chosen = weight.nonzero()[:, 0]
        again = nnls(found[chosen].T.numpy(), found.sum(0).numpy(), maxiter=100 * (len(chosen) + 1))
        weight[chosen] = torch.from_numpy(again[0])
    return weighted_rows(task, task.data, weight, seed, "giga")


def geodesic_ascent(rows: Tensor, steps: int) -> Tensor:
    """Non-negative weights ``(N,)`` of at most ``steps`` rows ``(N, S)`` whose weighted sum is near the sum of all."""
    total, norm = rows.sum(0), rows.norm(dim=1)
    weight, here = rows.new_zeros(len(rows)), torch.zeros_like(total)
    if not bool(total.any()):
        return weight
    goal, usable = total / total.norm(), norm > 0
    for _ in range(steps):
        towards = goal - (goal @ here) * here
        if float(towards.norm()) < ALIGNED**0.5:
            break
        along, cosine = (rows @ torch.stack([towards, here], 1) / norm.clamp_min(1e-300)[:, None]).unbind(1)
        sine2 = 1 - cosine**2
        score = torch.where(usable & (sine2 > ALIGNED), along / sine2.clamp_min(ALIGNED).sqrt(), -torch.inf)
        best = int(score.argmax())
        # The nearest point to the goal on the arc from here to the row, as a combination of the two.
        new, old = along[best], goal @ here - (goal @ rows[best]) / norm[best] * cosine[best]
        if not float(new) > 0:
            break
        new, old = new / norm[best], old.clamp_min(0)
        here, weight = old * here + new * rows[best], old * weight
        weight[best] += new
        length = here.norm()
        here, weight = here / length, weight / length
    return weight * (here @ total)
