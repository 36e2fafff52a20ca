"""Posterior densities: a prior and weighted rows of one or several tasks, swept in blocks of bounded memory.

A *sweep* is the sum over rows of the log-likelihood at S draws: S numbers, whatever the number of rows. The same class
serves the real rows (weight 1) and the distilled rows (weight w), so that the same code samples either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.data.distilled import Distilled
from bayesdd.data.rows import Held, Rows
from bayesdd.density import fused
from bayesdd.density.checkpoint import Checkpoint
from bayesdd.density.passes import BLOCK as BLOCK
from bayesdd.density.passes import MEMORY as MEMORY
from bayesdd.density.passes import Adder, Part, Passes, Quantity, Sums
from bayesdd.density.ranks import Ranks, current
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.engine import Expansion
from bayesdd.task.task import Task

ONE_GRAPH = 2**15  # draws x rows up to which prior and likelihood share a graph, as for distilled rows


class Density:
    """Log posterior density, up to a constant, of one joint flat unconstrained vector.

    Args:
        parts: ``(task, rows, weight)``; sites of equal name are one site, whose prior counts once.
        device: Where rows and draws live.
        memory: Bytes that intermediate tensors of one block may take.
        spread: Whether each rank sums some of the rows (real rows); else every rank sums them all.
        checkpoint: Where passes over the rows are kept.

    Attributes:
        dim: Length P of the joint flat vector.
        starts: Site -> where it starts in that vector, its shape and its width there.
        size: Number of rows of all parts.
        evaluations: Row log-likelihoods computed so far, in units of ``size`` (draws swept over all rows).
        gradients: The same for gradients with respect to the draws.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Task, Columns | Rows, Tensor | None]],
        device: torch.device | str = "cpu",
        memory: int = MEMORY,
        *,
        spread: bool = False,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.device, self.memory = torch.device(device), memory
        self.dim, self.parts = 0, list[Part]()
        self.starts: dict[str, tuple[int, tuple[int, ...], int]] = {}
        self._owners: list[tuple[int, int]] = []
        self._kept: list[Tensor] = []  # which of its prior's terms each part counts; the last one is not a site's
        for at, (task, rows, weight) in enumerate(parts):
            kept = torch.zeros(len(task.structure.sites) + 1, dtype=torch.float64)
            kept[-1] = float(at == 0)
            for place, site in enumerate(task.structure.sites):
                if site.name not in self.starts:
                    width = site.stop - site.start
                    self.starts[site.name] = (self.dim, site.shape, width)
                    self._owners.append((at, place))
                    kept[place] = 1.0
                    self.dim += width
            self._kept.append(kept.to(self.device))
            index = self.index_of(task, parts[0][0].name)
            placed = None if weight is None else weight.to(self.device)
            self.parts.append(Part(task, _rows(task, rows).on(self.device), placed, index))
        self.size = sum(part.rows.size for part in self.parts)
        self._passes = Passes(self.parts, self.device, memory, current() if spread else Ranks(), checkpoint)
        self.evaluations = self.gradients = 0.0
        self._expanded: tuple[Tensor, tuple[Tensor, Tensor, Tensor]] | None = None

    def index_of(self, task: Task, other: str) -> Tensor:
        """Where a task's latents stand in the joint flat vector, ``(P of the task,)``.

        Raises:
            Refusal: A site has another shape in ``other``, which the message names.
        """
        index: list[int] = []
        for site in task.structure.sites:
            start, shape, width = self.starts[site.name]
            if shape != site.shape:
                raise Refusal(
                    f"site {site.name!r} has shape {site.shape} in {task.name} but {shape} in {other}: "
                    "shared sites need equal shapes."
                )
            index.extend(range(start, start + width))
        return torch.tensor(index, dtype=torch.int64, device=self.device)

    def site_of(self, place: int) -> str:
        """The latent site of a coordinate of the flat vector."""
        return next(name for name, (start, _, width) in self.starts.items() if start <= place < start + width)

    def log_prior(self, draws: Tensor) -> Tensor:
        """Log prior with Jacobian, nats, shape ``(S,)``; a shared site counts once."""
        by_part = [part.task.log_prior_by_site(draws[:, part.place]) for part in self.parts]
        total = torch.stack([by_part[at][:, place] for at, place in self._owners]).sum(0)
        return total + by_part[0][:, -1]

    def sweep(self, draws: Tensor) -> Tensor:
        """Sum over rows of the log-likelihood at every draw, nats, shape ``(S,)``; no gradient."""
        self.evaluations += len(draws)
        fast = fused.sweep(self._passes, draws, self._swept)
        return self._swept(draws) if fast is None else fast

    def _swept(self, draws: Tensor) -> Tensor:
        with torch.no_grad():
            return self._passes(SWEEP, draws)[0]

    def log_joint(self, draws: Tensor) -> Tensor:
        """Log prior plus log-likelihood, nats, shape ``(S,)``; no gradient."""
        with torch.no_grad():
            return self.log_prior(draws) + self.sweep(draws)

    def log_joint_gradient(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Value ``(S,)`` and gradient ``(S, P)`` of the log joint."""
        draws = draws.detach()
        self.gradients += len(draws)
        (part, *others) = self.parts
        small = not others and self.size * len(draws) <= ONE_GRAPH and part.rows.sample_weight is None
        if small and part.weight is not None and isinstance(part.rows, Held):
            return part.task.joint_gradient(part.rows.columns, part.weight, draws)

        value, gradient = self._passes(GRADIENT, draws)
        for part, kept in zip(self.parts, self._kept, strict=True):
            if not bool(kept.any()):  # another task has every site of this one, and counts their priors
                continue
            found, slope = part.task.prior_gradient(kept, draws[:, part.place])
            value, gradient = value + found, gradient.index_add(1, part.index, slope)
        return value, gradient

    def likelihood_derivatives(self, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value ``(K,)``, gradient ``(K, P)`` and Hessian ``(K, P, P)`` of the log-likelihood at K points.

        The result at the latest points is kept.
        """
        if self._expanded is not None and torch.equal(self._expanded[0], draws):
            return self._expanded[1]
        count, dim = draws.shape
        self.gradients += count * (1 + dim)

        found = self._passes(DERIVATIVES, draws)
        self._expanded = draws.clone(), (found[0], found[1], found[2])
        return self._expanded[1]

    def prior_derivatives(self, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``likelihood_derivatives``, for the log prior."""
        count, dim = draws.shape
        copies = draws.repeat_interleave(dim, 0).detach().requires_grad_(True)
        prior = self.log_prior(copies)
        slope, hessian = _twice(prior, copies, torch.arange(dim, device=draws.device).repeat(count))
        return prior.detach()[::dim], slope.detach()[::dim], hessian.reshape(count, dim, dim)

    def count(self, few: Density) -> None:
        """Adds what was computed on few of the rows to what is counted here, in units of all rows."""
        self.evaluations += few.evaluations * few.size / self.size
        self.gradients += few.gradients * few.size / self.size

    def watch(self, report: Callable[[int, int], None] | None) -> None:
        """Calls ``report(rows done, rows in all)`` after every block of a pass from now on."""
        self._passes.report = report


def _sweeps(passes: Passes, draws: Tensor) -> Adder:
    def add(total: Sums, part: Part, rows: Columns, weight: Tensor | None) -> None:
        local = draws[:, part.place]

        # Added in place: a list of small results would fragment the memory.
        def chunk(at: slice) -> None:
            total[0][at] += _weighted(part.task.log_likelihood(rows, local[at]), weight)

        passes.in_chunks(part, rows, len(local), chunk)

    return add


def _gradients(passes: Passes, draws: Tensor) -> Adder:
    def add(total: Sums, part: Part, rows: Columns, weight: Tensor | None) -> None:
        ones = draws.new_ones(len(next(iter(rows.values())))) if weight is None else weight

        def chunk(at: slice) -> None:
            found, slope = part.task.likelihood_gradient(rows, ones, draws[at, part.place])
            total[0][at] += found
            total[1][at, part.place] += slope

        # A recorded graph frees its intermediate tensors as it goes, so that one copy is enough.
        passes.in_chunks(part, rows, len(draws), chunk, copies=1 if part.task.backend == "graph" else 3)

    return add


def _expansions(passes: Passes, draws: Tensor) -> Adder:
    def add(total: Sums, part: Part, rows: Columns, weight: Tensor | None) -> None:
        local = draws[:, part.index]
        for k in range(len(draws)):
            value, gradient, hessian = _expanded(passes, part, rows, weight, local[k])
            total[0][k] += value
            total[1][k] = total[1][k].index_add(0, part.index, gradient)
            total[2][k, part.index[:, None], part.index] += hessian

    return add


def _expanded(passes: Passes, part: Part, rows: Columns, weight: Tensor | None, point: Tensor) -> Expansion:
    """Value, gradient and Hessian of one block: batched over directions if the model allows it, else by copies."""
    count, width = len(next(iter(rows.values()))), len(point)
    ones = point.new_ones(count) if weight is None else weight
    piece = max(1, int(passes.memory / (part.task.bytes_per_cell * width)))
    step = -(-count // -(-count // piece))
    found: list[Tensor] = []
    for start in range(0, count, step):
        some = {name: column[start : start + step] for name, column in rows.items()}
        curved = part.task.likelihood_hessian(some, ones[start : start + step], point)
        if curved is None:
            break
        found = list(curved) if not found else [a + b for a, b in zip(found, curved, strict=True)]
    else:
        return found[0], found[1], found[2]
    by_chunk: list[tuple[Tensor, Tensor, Tensor]] = []

    def chunk(at: slice) -> None:
        directions = torch.arange(at.start, at.stop, device=point.device)
        by_chunk.append(derivatives(part.task, rows, weight, point, directions))

    passes.in_chunks(part, rows, width, chunk, copies=6)
    return by_chunk[0][0], by_chunk[0][1], torch.cat([found[2] for found in by_chunk])


def _values(draws: Tensor) -> Sums:
    return (draws.new_zeros(len(draws)),)


def _slopes(draws: Tensor) -> Sums:
    return draws.new_zeros(len(draws)), torch.zeros_like(draws)


def _curvatures(draws: Tensor) -> Sums:
    return *_slopes(draws), draws.new_zeros(*draws.shape, draws.shape[1])


SWEEP = Quantity("sweep", _values, _sweeps)
GRADIENT = Quantity("gradient", _slopes, _gradients)
DERIVATIVES = Quantity("derivatives", _curvatures, _expansions)


def derivatives(
    task: Task, rows: Columns, weight: Tensor | None, point: Tensor, directions: Tensor, *, create_graph: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, gradient ``(P,)`` and Hessian rows ``(len(directions), P)`` of the weighted log-likelihood at one point.

    The point is copied once for each direction, so that double backward gives all Hessian rows at once on any backend.
    With ``create_graph`` the results stay differentiable in rows and weights.
    """
    copies = point.detach().expand(len(directions), -1).clone().requires_grad_(True)
    likelihood = _weighted(task.log_likelihood(rows, copies), weight)
    slope, hessian = _twice(likelihood, copies, directions, create_graph=create_graph)
    if create_graph:
        return likelihood[0], slope[0], hessian
    return likelihood[0].detach(), slope[0].detach(), hessian


def _twice(value: Tensor, copies: Tensor, directions: Tensor, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    """Gradient and one row of the Hessian, that of its direction, for each copy ``(K, P)``: ``(K, P)`` each."""
    (slope,) = torch.autograd.grad(value.sum(), copies, create_graph=True)
    if not slope.requires_grad:
        return slope, torch.zeros_like(copies)
    along = slope * torch.nn.functional.one_hot(directions, copies.shape[1]).to(copies.dtype)
    (found,) = torch.autograd.grad(along.sum(), copies, create_graph=create_graph, allow_unused=True)
    return slope, torch.zeros_like(copies) if found is None else found


def _weighted(by_row: Tensor, weight: Tensor | None) -> Tensor:
    return by_row.sum(1) if weight is None else by_row @ weight


def _rows(task: Task, rows: Columns | Rows) -> Rows:
    if not isinstance(rows, Mapping):
        return rows
    if rows is task.data and isinstance(task.rows, Held):
        return task.rows  # with their weights
    if rows is task.data and len(next(iter(rows.values()))) < task.size:
        raise Refusal(
            f"{task.name} reads its {task.size:,} rows from disk, and task.data is a sample of them: give task.rows."
        )
    return Held(rows)


def density_of(student: Task, distilled: Distilled, device: torch.device | str) -> Density:
    """The posterior of a distilled set."""
    rows, weight = distilled.hard()
    return Density([(student, rows, weight)], device)
