r"""Sweeps on a GPU: a model's graph in float32, compiled in one piece with the sum over rows.

.. math:: l_D(\theta) = l_D(c) + \sum_n [l(\theta; z_n) - l(c; z_n)]

with c one of the draws, whose own log-likelihood is summed in float64. Differences are taken row by row and summed in
float32 over 256 rows, then in float64: raw sums in float32 would lose the digits that a log-ratio of a million rows
consists of. The error that remains is measured on some blocks against float64; where it may exceed ``ERROR`` (counts of
a million), and where nothing can be compiled, sweeps stay in float64. ``studies/gpu.py`` measures the speed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx
from torch.func import vmap

from bayesdd.data.columns import Columns
from bayesdd.density.passes import Part, Passes, Quantity, Sums
from bayesdd.task.engine import Single, moved
from bayesdd.task.program import evaluate, running
from bayesdd.task.task import Task

DEVICES = {"cuda"}  # a CPU seldom has a compiler, and gains little from float32
LEAST_CELLS = 2**33  # draws x rows below which compiling, 1 to 7 s, costs more than it saves
TOGETHER = 256  # rows whose differences are summed in float32, before float64
DRAWS = 2048  # most draws of a call
# Nats, the largest error at any draw; a KL is off by half its square. Compared with an upper limit for all blocks:
# the mean error of the checked blocks plus twice its standard error.
ERROR = 1e-2
CHECKED, CHECKED_DRAWS = 16, 64  # blocks, at most, and draws that are also summed in float64

Compiled = Callable[..., Tensor]
_FUSED: WeakKeyDictionary[Task, Fused] = WeakKeyDictionary()


class Fused:
    """Sums over rows of differences of log-likelihoods, in float32.

    Args:
        single: The rows' log-likelihood at one draw, ``(P,)`` -> ``(rows,)``, of which a graph can be recorded.
    """

    def __init__(self, single: Single) -> None:
        self.single = single
        self._built: dict[Any, tuple[Compiled, Compiled]] = {}

    def __call__(self, draws: Tensor, rows: Columns) -> Tensor:
        """Sum of ``l(draw; row) - l(first draw; row)``, float64, ``(S,)``; the rows are a multiple of TOGETHER."""
        count = min(DRAWS, max(64, 2 ** math.ceil(math.log2(len(draws) - 1))))
        columns = {n: c.float() if c.is_floating_point() else c for n, c in sorted(rows.items())}
        key = (count, draws.device, *((n, c.shape, c.dtype) for n, c in columns.items()))
        if key not in self._built:
            self._built[key] = self._compiled(count, draws, columns)
        by_row, sums = self._built[key]
        centre, found = draws[:1].float(), []
        with _tensor_cores():
            first = by_row(centre, *columns.values())
            for some in draws[1:].split(count):
                filled = torch.cat([some.float(), centre.expand(count - len(some), -1)])
                found.append(sums(filled, first, *columns.values())[: len(some)])
        return torch.cat([draws.new_zeros(1), *found])

    def _compiled(self, count: int, draws: Tensor, rows: Columns) -> tuple[Compiled, Compiled]:
        """The centre's log-likelihood by row ``(1, rows)``, and sums of differences from it ``(count,)``, nats.

        Two functions, since a compiler given both at once computes the centre's again for every draw.
        """
        one, many = (self._recorded(some, draws, rows) for some in (1, count))

        def sums(points: Tensor, first: Tensor, *columns: Tensor) -> Tensor:
            few = (many(points, *columns) - first).unflatten(1, (-1, TOGETHER)).sum(2)
            total: Tensor = few.sum(1, dtype=torch.float64)
            return total

        return torch.compile(one, dynamic=False), torch.compile(sums, dynamic=False)

    def _recorded(self, count: int, draws: Tensor, rows: Columns) -> fx.GraphModule:
        """The graph in float32: draws ``(count, P)`` and columns -> nats ``(count, rows)``."""
        batched = vmap(self.single, in_dims=(0, None))

        def flat(points: Tensor, *columns: Tensor) -> Tensor:
            return batched(points, dict(zip(rows, columns, strict=True)))

        from torch.fx.experimental.proxy_tensor import make_fx  # a second of imports

        # Only shapes are traced: real values would take seconds on the CPU.
        like = [torch.zeros((), dtype=_wide(c.dtype)).expand(c.shape) for c in rows.values()]
        points = torch.zeros((), dtype=torch.float64).expand(count, draws.shape[1])
        with running(), _one_mode():
            graph = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)(points, *like)
        moved(_narrow(graph), draws.device)
        return graph


def sweep(passes: Passes, draws: Tensor, exact: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Log-likelihood of all rows at draws ``(S, P)``, nats, ``(S,)``; None where float64 must be used.

    Args:
        passes: The rows, unweighted.
        draws: In the joint flat vector.
        exact: The sweep in float64.
    """
    rows = sum(part.rows.size for part in passes.parts)
    usable = all(not (part.weighted or part.rows.elsewhere) and part.task.backend == "graph" for part in passes.parts)
    if passes.device.type not in DEVICES or not usable or rows * len(draws) < LEAST_CELLS or passes.refused:
        return None
    spread = (draws - draws.mean(0)) / draws.std(0, correction=0).clamp_min(1e-300)
    centre = draws[spread.square().sum(1).argmin()][None]
    points, blocks = torch.cat([centre, draws]), sum(part.rows.size // passes.block for part in passes.parts)
    checked = points[: 1 + CHECKED_DRAWS]
    seen = itertools.count()

    def add(total: Sums, part: Part, rows: Columns, weight: Tensor | None) -> None:
        local = points[:, part.index]
        if len(next(iter(rows.values()))) != passes.block:
            total[0].add_(_differences(passes, part, rows, local)[1:])
            return
        found = _of(part.task)(local, rows)
        total[0].add_(found[1:])
        if next(seen) % max(1, -(-blocks // CHECKED)) == 0:
            lost = found[: len(checked)] - _differences(passes, part, rows, local[: len(checked)])
            for to, value in zip(total[1:], (lost, lost.square(), torch.ones_like(lost[:1])), strict=True):
                to.add_(value)

    zeros = tuple(draws.new_zeros(size) for size in (len(draws), len(checked), len(checked), 1))
    quantity = Quantity("fused", lambda _: tuple(map(torch.zeros_like, zeros)), lambda *_: add)
    try:
        with torch.no_grad():
            found, lost, squares, count = passes(quantity, points)
            if float((blocks * lost.abs() + 2 * (blocks * count * squares).sqrt()).max()) <= ERROR * float(count):
                return exact(centre) + found
    except (RuntimeError, ImportError) as error:  # no compiler, no memory, an operation that it does not know
        if isinstance(error, ConnectionError):
            raise
    passes.refused = True
    return None


def _of(task: Task) -> Fused:
    if task not in _FUSED:
        program = task.program  # not the task, which must not be kept alive
        _FUSED[task] = Fused(lambda flat, rows: evaluate(program, flat, rows)[1])
    return _FUSED[task]


def _differences(passes: Passes, part: Part, rows: Columns, local: Tensor) -> Tensor:
    """The same sums in float64, by the task's own log-likelihood."""
    total = local.new_zeros(len(local))
    with torch.no_grad():
        centre = part.task.log_likelihood(rows, local[:1])

        def chunk(at: slice) -> None:
            total[at] = (part.task.log_likelihood(rows, local[at]) - centre).sum(1)

        passes.in_chunks(part, rows, len(local), chunk)
    return total


def _one_mode() -> AbstractContextManager[Any]:
    """While recording: one mode for the shapes that make_fx notes at every operation: twice as fast as a new one each.

    The names are private in torch: where they are gone, recording is only slower.
    """
    try:
        from torch._guards import TracingContext, tracing
        from torch._subclasses.fake_tensor import FakeTensorMode

        context: AbstractContextManager[Any] = tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True)))
    except (ImportError, AttributeError, TypeError):
        return nullcontext()
    return context


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype.is_floating_point else dtype


def _narrow(graph: fx.GraphModule) -> fx.GraphModule:
    """A recorded graph with float32 for float64 everywhere, the model's constants included."""

    def narrow(value: Any) -> Any:
        return torch.float32 if value is torch.float64 else value

    for node in graph.graph.nodes:
        node.args = fx.node.map_aggregate(node.args, narrow)
        node.kwargs = fx.node.map_aggregate(node.kwargs, narrow)
        if node.target is torch.ops.aten.mm.default:
            node.target = _product
    for name, value in [*vars(graph).items(), *graph.named_buffers()]:
        if isinstance(value, Tensor) and value.dtype == torch.float64:
            setattr(graph, name, value.float())
    return graph


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A float32 matrix product ``(N, K) (K, S)`` from three products of eleven-bit numbers, which tensor cores compute.

    Each number is the sum of its eleven leading bits and a rest; the product of two rests is below float32's last bit,
    and small products are summed first. As in Ootomo and Yokota 2022 (arXiv 2203.03341), who also correct the sums.
    """
    (a, a_rest), (b, b_rest) = _split(a), _split(b)
    return torch.mm(torch.cat([a_rest, a, a], 1), torch.cat([b, b_rest, b], 0))


def _split(number: Tensor) -> tuple[Tensor, Tensor]:
    """Every float32 number rounded to eleven bits, and the rest; their sum is the number, exactly."""
    leading = ((number.view(torch.int32) + 2**12) & -(2**13)).view(torch.float32)
    return leading, number - leading


@contextmanager
def _tensor_cores() -> Iterator[None]:
    """Within, matrix products of float32 numbers use the eleven leading bits of each."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
