"""One pass over rows: sums over blocks of rows at given draws, in bounded memory, by one rank or several.

Blocks are summed within one of 64 groups, then the groups in order. The groups depend on the number of rows alone, so
that any number of ranks, each owning some groups, comes to the same sums bit for bit: L-BFGS would amplify a difference
in the last digit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.data.columns import Columns, separated
from bayesdd.data.rows import Held, Rows
from bayesdd.density.checkpoint import Checkpoint
from bayesdd.density.ranks import Ranks
from bayesdd.numerics.exclusive import LOCK
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.task import Task, unpacked

MEMORY = 32 * 2**20  # bytes of intermediate tensors a block may take; the process stays under 1 GiB
BLOCK = 8192  # rows; larger and smaller blocks were up to 2.3 times slower
TOGETHER, FEW = 4, 4  # so many blocks at once where draws are so few: 1.6 times as fast as one by one
CACHE_CELLS = 2**19  # draws x rows of one block: larger ones leave the CPU's cache and are 1.7 times slower
GROUPS = 64
# On a GPU: draws x rows that fill it with one kernel, and the share of its free memory that a block may take.
CUDA_BLOCK, CUDA_CELLS, CUDA_SHARE = 2**17, 2**27, 0.25

Sums = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """One task's rows with their weights (None: all 1), and where the task's latents stand in the joint flat vector."""

    task: Task
    rows: Rows
    weight: Tensor | None
    index: Tensor

    @property
    def weighted(self) -> bool:
        """Whether rows count other than once each."""
        return self.weight is not None or self.rows.sample_weight is not None

    def split(self, block: Columns, first: int) -> tuple[Columns, Tensor | None]:
        """A block's columns and weights ``(n,)``, its own times those of the part; ``first`` is its first row's number.

        None where every row counts once.
        """
        columns, own = separated(block)
        if self.weight is None:
            return columns, own
        part = self.weight[first : first + len(next(iter(columns.values())))]
        return columns, part if own is None else part * own.to(part.device)

    @cached_property
    def place(self) -> slice | Tensor:
        """``index``, as a slice where latents stand together, since slices copy nothing."""
        start, stop = int(self.index[0]), int(self.index[-1]) + 1
        return slice(start, stop) if torch.equal(self.index.cpu(), torch.arange(start, stop)) else self.index


Adder = Callable[[Sums, Part, Columns, Tensor | None], None]


class Quantity(NamedTuple):
    """What is summed over rows at draws.

    Attributes:
        name: In checkpoints and where ranks compare.
        zeros: Draws ``(S, P)`` -> zeros of the sums' shapes; axes after the first are latents.
        adder: The passes, draws -> a function that adds a block's part to sums in place.
    """

    name: str
    zeros: Callable[[Tensor], Sums]
    adder: Callable[[Passes, Tensor], Adder]


@dataclass(eq=False)
class Passes:
    """How passes over some parts' rows are made.

    Attributes:
        parts: The tasks and their rows.
        device: Where blocks are computed.
        memory: Bytes that intermediate tensors of one block may take; halved where the device runs out of it.
        ranks: The processes that share the rows.
        checkpoint: Sums of earlier passes, which are not made again.
        report: Called after every block with the rows done and the rows in all.
        refused: Whether sweeps in float32 (``bayesdd.density.fused``) were tried and were not accurate enough.
    """

    parts: list[Part]
    device: torch.device
    memory: int
    ranks: Ranks
    checkpoint: Checkpoint | None = None
    report: Callable[[int, int], None] | None = None
    refused: bool = False

    def __post_init__(self) -> None:
        if self.ranks.many and (loose := [part for part in self.parts if not part.rows.ordered]):
            raise Refusal(
                f"{loose[0].task.name}: ranks share rows by their numbers, and a query may give each of them another "
                "order: write it to Parquet (COPY (...) TO 'rows.parquet') and give that"
            )
        cuda = self.device.type == "cuda"
        self.block, self.cells = (CUDA_BLOCK, CUDA_CELLS) if cuda else (BLOCK, CACHE_CELLS)
        if cuda and self.memory == MEMORY:
            self.memory = max(MEMORY, int(CUDA_SHARE * torch.cuda.mem_get_info(self.device)[0]))

    def __call__(self, quantity: Quantity, draws: Tensor) -> Sums:
        """The sums over all rows.

        Raises:
            OSError: Another rank died or does not answer; rows on disk were removed or changed.
            ValueError: A block breaks the model's contract, or holds numbers that float64 cannot.
            RuntimeError: Ranks disagree about the draws.
        """
        if self.checkpoint is None:
            return self._sum(quantity, draws)
        cells = sum(part.rows.size for part in self.parts) * sum(zero.numel() for zero in quantity.zeros(draws))
        found = self.checkpoint.sums(quantity.name, draws, cells, lambda: self._sum(quantity, draws))
        return tuple(part.to(self.device) for part in found)

    def in_chunks(
        self, part: Part, rows: Columns, items: int, evaluate: Callable[[slice], None], *, copies: int = 1
    ) -> None:
        """Evaluates as many draws at once as fit the cache and the memory; fewer where the device runs out.

        Args:
            part: Whose rows.
            rows: The block.
            items: How many draws.
            evaluate: Called with slices of them, again where memory ran out: it changes nothing until it has succeeded.
            copies: How many times intermediate tensors are kept: 3 with a gradient by autograd.

        Raises:
            MemoryError: Not even one draw fits.
        """
        count = len(next(iter(rows.values())))
        start = 0
        while start < items:
            fitting = int(self.memory / (part.task.bytes_per_cell * copies * count))
            chunk = max(1, min(self.cells // count, fitting))
            stop = min(items, start + chunk)
            try:
                evaluate(slice(start, stop))
            except torch.OutOfMemoryError as error:
                if stop - start == 1:
                    raise MemoryError(
                        f"{part.task.name}: the device has no memory for one draw of {count:,} rows: "
                        "free some of it, or use device='cpu'."
                    ) from error
                self.memory = int((stop - start) // 2 * part.task.bytes_per_cell * copies * count)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            start = stop

    def _sum(self, quantity: Quantity, draws: Tensor) -> Sums:
        zeros, add = quantity.zeros(draws), quantity.adder(self, draws)
        groups = GROUPS * math.ceil(self.ranks.count / GROUPS)
        slab = draws.new_zeros(len(self.parts) * groups, sum(z.numel() for z in zeros)) if self.ranks.many else None
        done, every = 0, sum(part.rows.size for part in self.parts)
        total = tuple(torch.zeros_like(zero) for zero in zeros)
        for at, part in enumerate(self.parts):
            if part.rows.elsewhere:
                found = self._elsewhere(quantity, part, draws)
                done += part.rows.size
                if self.report is not None:
                    self.report(done * self.ranks.count, every)
                if slab is None:
                    _add(total, found)
                elif self.ranks.rank == 0:
                    slab[at * groups] = torch.cat([piece.flatten() for piece in found])
                continue
            step = self.block * (TOGETHER if len(draws) <= FEW else 1)
            for group, blocks in itertools.groupby(self._blocks(part, groups, step), key=lambda block: block[0]):
                found = tuple(torch.zeros_like(zero) for zero in zeros)
                for _, rows, weight in blocks:
                    add(found, part, rows, weight)
                    done += len(next(iter(rows.values())))
                    if self.report is not None:
                        self.report(done * self.ranks.count, every)
                if slab is None:
                    _add(total, found)
                else:
                    slab[at * groups + group] = torch.cat([piece.flatten() for piece in found])
        if slab is not None:
            widths = [zero.numel() for zero in zeros]
            for row in self.ranks.summed(slab, f"{quantity.name} {tuple(draws.shape)}", draws):
                _add(total, tuple(p.reshape(z.shape) for p, z in zip(row.split(widths), zeros, strict=True)))
        return total

    def _elsewhere(self, quantity: Quantity, part: Part, draws: Tensor) -> Sums:
        """The sums of a part whose rows are in other processes, taken there and placed among all latents."""
        local = draws[:, part.index].cpu()
        first = part.rows.unseen(0, part.rows.size)
        found = part.rows.total(sums_at, part.task.packed, quantity, local, self.memory, first)
        zeros = quantity.zeros(draws)
        for zero, piece in zip(zeros, found, strict=True):
            places = [torch.arange(len(zero)), *[part.index.cpu()] * (zero.dim() - 1)]
            zero[torch.meshgrid(*places, indexing="ij")] = piece.to(zero)
        return zeros

    def _blocks(self, part: Part, groups: int, step: int) -> Iterator[tuple[int, Columns, Tensor | None]]:
        """This rank's blocks with the number of their group; rows that were never seen are checked on the way."""
        rows, size = part.rows, part.rows.size
        step = min(size, step, rows.most)
        count = math.ceil(size / step)
        groups = min(groups, count)
        # Whole groups a rank: rank r of K owns groups floor(G r / K) to floor(G (r + 1) / K).
        low, high = (groups * (self.ranks.rank + i) // self.ranks.count for i in (0, 1))
        first, last = (-(-count * group // groups) for group in (low, high))
        pin = self.device.type == "cuda" and next(iter(rows.sample.values())).device.type == "cpu"
        begin, end = first * step, min(size, last * step)
        for start, piece in zip(range(begin, end, step), rows.blocks(begin, end, step, pin=pin), strict=True):
            columns, weight = part.split(piece, start)
            if rows.unseen(start, start + step):
                part.task.check(columns, start)
            block = {name: column.to(self.device, non_blocking=True) for name, column in columns.items()}
            yield groups * (start // step) // count, block, None if weight is None else weight.to(self.device)


def sums_at(
    columns: Columns, first: int, packed: bytes, quantity: Quantity, draws: Tensor, memory: int, check: bool
) -> Sums:
    """The sums of some rows in the process that holds them.

    Args:
        columns: Column -> ``(n, ...)``, weights among them.
        first: Number of the first row.
        packed: The task.
        quantity: What is summed.
        draws: Draws of the task's latents ``(S, P)``.
        memory: Bytes that intermediate tensors of one block may take.
        check: Whether the rows are checked against the model first.
    """
    with LOCK:  # a worker may run several threads, and Pyro's handlers know one
        task, (own, weight) = unpacked(packed), separated(columns)
        if check:
            task.check(own, first)
        part = Part(task, Held(own, sample_weight=weight), None, torch.arange(task.dim))
        return Passes([part], torch.device("cpu"), memory, Ranks())(quantity, draws)


def _add(total: Sums, found: Sums) -> None:
    for one, other in zip(total, found, strict=True):
        one += other
