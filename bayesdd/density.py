"""Posterior densities: a prior and weighted rows of one or several tasks, swept in blocks of bounded memory.

A *sweep* is the sum over rows of the log-likelihood at S draws: S numbers, whatever the number of rows. The same
class serves the real rows (weight 1) and the distilled rows (weight w), so that one line of code samples either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.hessian import Expansion
from bayesdd.pyro_model import Columns
from bayesdd.task import Task

MEMORY = 32 * 2**20  # bytes of intermediate tensors a block may take; the process stays under 1 GiB
BLOCK = 8192  # rows; 1,024 to 24,060 were up to 2.3 times slower (S = 2,000, d = 11)
ONE_GRAPH = 2**15  # draws x rows up to which prior and likelihood share a graph: distilled rows, one block
CACHE_CELLS = 2**19  # draws x rows of one block: larger blocks fall out of the processor's cache (1.7 times slower)


@dataclass(frozen=True, eq=False)
class Part:
    """One task's rows with their weights (None: all 1), and where the task's latents stand in the joint flat vector."""

    task: Task
    rows: Columns
    weight: Tensor | None
    index: Tensor


class Density:
    """Log posterior density, up to a constant, of one joint flat unconstrained vector.

    Args:
        parts: ``(task, rows, weight)``; sites of equal name are one site and its prior counts once.
        device: Where rows and draws live.
        memory: Bytes that intermediate tensors of one block may take.

    Attributes:
        dim: Length P of the joint flat vector.
        size: Number of rows of all parts.
        evaluations: Row log-likelihoods computed so far, in units of ``size`` (draws swept over all rows).
        gradients: The same for gradients with respect to the draws.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Task, Columns, Tensor | None]],
        device: torch.device | str = "cpu",
        memory: int = MEMORY,
    ) -> None:
        self.device, self.memory = torch.device(device), memory
        self.names: list[str] = []
        owners: list[tuple[int, int]] = []
        starts: dict[str, tuple[int, tuple[int, ...], int]] = {}
        used = 0
        placed: list[list[int]] = []
        for at, (task, _, _) in enumerate(parts):
            index: list[int] = []
            for place, site in enumerate(task.structure.sites):
                if site.name not in starts:
                    starts[site.name] = (used, site.shape, site.stop - site.start)
                    owners.append((at, place))
                    used += site.stop - site.start
                    self.names.append(site.name)
                start, shape, width = starts[site.name]
                if shape != site.shape:
                    raise ValueError(
                        f"site {site.name!r} has shape {shape} in {parts[0][0].name} but {site.shape} in {task.name}: "
                        "shared sites need equal shapes."
                    )
                index.extend(range(start, start + width))
            placed.append(index)
        self.dim, self._owners, self.starts = used, owners, starts
        self.parts = [
            Part(
                task,
                {name: column.to(self.device) for name, column in rows.items()},
                None if weight is None else weight.to(self.device),
                torch.tensor(index, device=self.device),
            )
            for (task, rows, weight), index in zip(parts, placed, strict=True)
        ]
        self._kept = [torch.zeros(len(task.structure.sites) + 1, dtype=torch.float64) for task, _, _ in parts]
        for at, place in owners:
            self._kept[at][place] = 1.0
        self._kept[0][-1] = 1.0
        self._kept = [kept.to(self.device) for kept in self._kept]
        self.size = sum(len(next(iter(part.rows.values()))) for part in self.parts)
        self.evaluations = self.gradients = 0.0
        self._expanded: tuple[Tensor, tuple[Tensor, Tensor, Tensor]] | None = None

    def log_prior(self, draws: Tensor) -> Tensor:
        """Log prior with Jacobian, nats, shape ``(S,)``; a shared site counts once."""
        by_part = [part.task.log_prior_by_site(draws[:, part.index]) for part in self.parts]
        total = torch.stack([by_part[at][:, place] for at, place in self._owners]).sum(0)
        return total + by_part[0][:, -1]

    def sweep(self, draws: Tensor) -> Tensor:
        """Sum over rows of the log-likelihood at every draw, nats, shape ``(S,)``; no gradient."""
        with torch.no_grad():
            total = draws.new_zeros(len(draws))
            for part, rows, weight in self._blocks():
                local = draws[:, part.index]
                # Added in place, chunk by chunk: small results kept in a list split the freed blocks between them,
                # and the process grew to 7 GiB (Gaussian mean, d = 200).
                for at in self._chunks(part, len(local), rows, gradient=False):
                    total[at] += _weighted(part.task.log_likelihood(rows, local[at]), weight)
        self.evaluations += len(draws)
        return total

    def log_joint(self, draws: Tensor) -> Tensor:
        """Log prior plus log-likelihood, nats, shape ``(S,)``; no gradient."""
        with torch.no_grad():
            return self.log_prior(draws) + self.sweep(draws)

    def log_joint_gradient(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Value ``(S,)`` and gradient ``(S, P)`` of the log joint."""
        draws = draws.detach()
        self.gradients += len(draws)
        (part, *others) = self.parts
        if not others and self.size * len(draws) <= ONE_GRAPH and part.weight is not None:
            return part.task.joint_gradient(part.rows, part.weight, draws)
        value, gradient = draws.new_zeros(len(draws)), torch.zeros_like(draws)
        for part, kept in zip(self.parts, self._kept, strict=True):
            found, slope = part.task.prior_gradient(kept, draws[:, part.index])
            value += found
            gradient.index_add_(1, part.index, slope)
        for part, rows, weight in self._blocks():
            ones = draws.new_ones(len(next(iter(rows.values())))) if weight is None else weight
            for at in self._chunks(part, len(draws), rows, gradient=True):
                found, slope = part.task.likelihood_gradient(rows, ones, draws[at][:, part.index])
                value[at] += found
                gradient[at] = gradient[at].index_add(1, part.index, slope)
        return value, gradient

    def likelihood_derivatives(self, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value ``(K,)``, gradient ``(K, P)`` and Hessian ``(K, P, P)`` of the log-likelihood at K points.

        Asked again at the same points, it is not computed again.
        """
        if self._expanded is not None and torch.equal(self._expanded[0], draws):
            return self._expanded[1]
        count, dim = draws.shape
        value, gradient = draws.new_zeros(count), draws.new_zeros(count, dim)
        hessian = draws.new_zeros(count, dim, dim)
        for part, rows, weight in self._blocks():
            local = draws[:, part.index]
            for k in range(count):
                v, g, h = self._derivatives(part, rows, weight, local[k])
                hessian[k, part.index[:, None], part.index] += h
                value[k] += v
                gradient[k] = gradient[k].index_add(0, part.index, g)
        self.gradients += count * (1 + dim)
        self._expanded = draws.clone(), (value, gradient, hessian)
        return self._expanded[1]

    def _derivatives(self, part: Part, rows: Columns, weight: Tensor | None, point: Tensor) -> Expansion:
        """Value, gradient and Hessian of one block: batched over directions where the model can be, else by copies."""
        count, width = len(next(iter(rows.values()))), len(point)
        ones = point.new_ones(count) if weight is None else weight
        piece = max(1, int(self.memory / (part.task.bytes_per_cell * width)))
        pieces = -(-count // piece)
        found: list[Tensor] = []
        for start in range(0, count, -(-count // pieces)):
            at = slice(start, start + -(-count // pieces))
            some = {name: column[at] for name, column in rows.items()}
            curved = part.task.likelihood_hessian(some, ones[at], point)
            if curved is None:
                break
            found = list(curved) if not found else [a + b for a, b in zip(found, curved, strict=True)]
        else:
            return found[0], found[1], found[2]
        # Equal shares: one shape to record instead of two.
        shares = -(-width // max(1, self._draws_at_once(part, rows, gradient=True) // 2))
        curvature = []
        for directions in torch.arange(width, device=point.device).split(-(-width // shares)):
            v, g, h = derivatives(part.task, rows, weight, point, directions)
            curvature.append(h)
        return v, g, torch.cat(curvature)

    def prior_derivatives(self, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``likelihood_derivatives``, for the log prior."""
        count, dim = draws.shape
        copies = draws.repeat_interleave(dim, 0).detach().requires_grad_(True)
        prior = self.log_prior(copies)
        (slope,) = torch.autograd.grad(prior.sum(), copies, create_graph=True)
        eye = torch.eye(dim, dtype=draws.dtype, device=draws.device).repeat(count, 1)
        hessian = torch.zeros_like(copies)
        if slope.requires_grad:
            (found,) = torch.autograd.grad((slope * eye).sum(), copies, allow_unused=True)
            hessian = hessian if found is None else found
        return prior.detach()[::dim], slope.detach()[::dim], hessian.reshape(count, dim, dim)

    def _blocks(self) -> Iterator[tuple[Part, Columns, Tensor | None]]:
        for part in self.parts:
            rows = len(next(iter(part.rows.values())))
            block = min(rows, BLOCK)
            for start in range(0, rows, block):
                stop = min(rows, start + block)
                piece = {name: column[start:stop] for name, column in part.rows.items()}
                yield part, piece, None if part.weight is None else part.weight[start:stop]

    def _draws_at_once(self, part: Part, rows: Columns, *, gradient: bool) -> int:
        """Draws a block takes at once: what fits the cache, and at most the memory."""
        count = len(next(iter(rows.values())))
        cell = part.task.bytes_per_cell * (3 if gradient else 1)
        return max(1, min(CACHE_CELLS // count, int(self.memory / (cell * count))))

    def _chunks(self, part: Part, count: int, rows: Columns, *, gradient: bool) -> list[slice]:
        chunk = self._draws_at_once(part, rows, gradient=gradient)
        return [slice(start, min(count, start + chunk)) for start in range(0, count, chunk)]


def derivatives(
    task: Task, rows: Columns, weight: Tensor | None, point: Tensor, directions: Tensor, *, create_graph: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, gradient ``(P,)`` and Hessian rows ``(len(directions), P)`` of the weighted log-likelihood at one point.

    The point is copied once a direction, so that plain double backward gives all Hessian rows at once, whatever backend
    evaluates the model. With ``create_graph`` the results stay differentiable in rows and weights.
    """
    copies = point.detach().expand(len(directions), -1).clone().requires_grad_(True)
    likelihood = _weighted(task.log_likelihood(rows, copies), weight)
    (slope,) = torch.autograd.grad(likelihood.sum(), copies, create_graph=True)
    eye = torch.nn.functional.one_hot(directions, len(point)).to(point.dtype)
    hessian = torch.zeros_like(copies)
    if slope.requires_grad:
        (found,) = torch.autograd.grad((slope * eye).sum(), copies, create_graph=create_graph, allow_unused=True)
        hessian = hessian if found is None else found
    if create_graph:
        return likelihood[0], slope[0], hessian
    return likelihood[0].detach(), slope[0].detach(), hessian


def _weighted(by_row: Tensor, weight: Tensor | None) -> Tensor:
    return by_row.sum(1) if weight is None else by_row @ weight
