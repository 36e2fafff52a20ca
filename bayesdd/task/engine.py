"""Batching a model over draws: one function of one draw becomes one function of S draws.

Three backends, tried in this order and chosen once per task:

* ``graph``: ``torch.func.vmap``, recorded per shape (``recording``). Pyro's handlers then run only while recording
  (500 chains with gradient: 35 ms before, 1 ms after). Recording raises on ``.item()`` and on data-dependent shapes.
* ``vmap``: the same without recording.
* ``loop``: one run a draw, for models that vmap refuses (control flow on a latent value).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, jacrev, vmap
from torch.fx import GraphModule

from bayesdd.data.columns import Columns
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.program import float64, running
from bayesdd.task.recording import recorded
from bayesdd.task.simplify import simplify

Expansion = tuple[Tensor, Tensor, Tensor]  # value, gradient (P,) and Hessian (P, P) at one point

Single = Callable[[Tensor, Columns], Tensor]
GRAPHS_KEPT = 64  # a graph holds its constants: memory stays bounded
UNRECORDED = 10  # calls of one shape before it is recorded: a recording costs what about ten calls of vmap do
REPEATED = 2  # the same for gradients, which climbs and chains ask for many times
UNKNOWN_BYTES = 512.0  # a cell of an ordinary regression takes less


class Engine:
    """One function ``single(flat (P,), columns) -> tensor`` evaluated at many draws ``(S, P)``.

    Args:
        single: The function of one draw.
        backend: ``graph``, ``vmap`` or ``loop``.
        unrecorded: Calls of one shape that ``graph`` leaves to vmap before it records the shape.
        compiled: Whether ``torch.compile`` turns what is recorded into machine code, which takes seconds to a minute
            for each shape and a C++ compiler. Not differentiable then.
    """

    def __init__(self, single: Single, backend: str, unrecorded: int = 0, *, compiled: bool = False) -> None:
        self.single, self.backend, self.unrecorded, self.compiled = single, backend, unrecorded, compiled
        self._graphs: dict[Any, GraphModule] = {}
        self._fast: dict[Any, Callable[..., Tensor]] = {}
        self._calls: dict[Any, int] = {}

    def __call__(self, draws: Tensor, columns: Columns) -> Tensor:
        """Stacks ``single`` over draws: shape ``(S, ...)``; differentiable in draws and in floating columns."""
        # Inside torch.func transforms the wrapped tensors would be recorded as constants: derivatives silently zero.
        plain = torch._C._functorch.peek_interpreter_stack() is None
        if self.backend == "graph" and plain and self._worth_recording(draws, columns):
            graph = self._graph(draws, columns)
            # torch.ones() stays in a graph without its dtype, and would come out in float32.
            with float64():
                if self.compiled:
                    return self._compiled(graph, draws, columns)
                result: Tensor = graph.forward(draws, *columns.values())
            return result
        with running(draws.device):
            if self.backend != "loop":
                return vmap(self.single, in_dims=(0, None))(draws, columns)
            return torch.stack([self.single(draw, columns) for draw in draws])

    def _worth_recording(self, draws: Tensor, columns: Columns) -> bool:
        key = _key(draws, columns)
        if key in self._graphs:
            return True
        self._calls[key] = self._calls.get(key, 0) + 1
        return self._calls[key] > self.unrecorded

    def _graph(self, draws: Tensor, columns: Columns) -> GraphModule:
        key = _key(draws, columns)
        if key not in self._graphs:
            if len(self._graphs) >= GRAPHS_KEPT:
                self._graphs.pop(next(iter(self._graphs)))
            self._graphs[key] = self._record(draws.detach(), {name: c.detach() for name, c in columns.items()})
        return self._graphs[key]

    def _record(self, draws: Tensor, columns: Columns) -> GraphModule:
        # On the CPU, and then moved: a model's own constants live there, whatever the draws' device.
        elsewhere = draws.device.type != "cpu"
        given = draws, columns
        if elsewhere:
            like = {name: torch.zeros_like(column, device="cpu") for name, column in columns.items()}
            given = torch.zeros_like(draws, device="cpu"), like
        names, batched = list(columns), vmap(self.single, in_dims=(0, None))

        def flat(draws: Tensor, *columns: Tensor) -> Tensor:
            found: Tensor = batched(draws, dict(zip(names, columns, strict=True)))
            return found

        with running():
            root, nodes = recorded(flat, [given[0], *given[1].values()])
        with float64():
            simplify(root, nodes)
        graph = GraphModule(root, nodes)
        if elsewhere:
            moved(graph, draws.device)
        return graph

    def _compiled(self, graph: GraphModule, draws: Tensor, columns: Columns) -> Tensor:
        if graph not in self._fast:
            self._fast = {one: self._fast[one] for one in self._graphs.values() if one in self._fast}
            self._fast[graph] = torch.compile(graph, fullgraph=True, dynamic=False)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of the compiler's own making
                return self._fast[graph](draws.detach(), *columns.values())
        except torch._dynamo.exc.TorchDynamoException as error:
            raise Refusal(
                "torch.compile has failed: it needs a C++ compiler (g++ or clang++) and Python's headers. Leave out "
                f"compiled=True, which changes no result. It said: {str(error).splitlines()[0]}"
            ) from error

    def bytes_per_cell(self, draws: Tensor, columns: Columns) -> float:
        """Bytes of all intermediate tensors, divided by draws x rows; a guess where the graph cannot be recorded."""
        if self.backend != "graph":
            return UNKNOWN_BYTES
        nodes = self._graph(draws, columns).graph.nodes
        sizes = [node.meta["val"] for node in nodes if isinstance(node.meta.get("val"), Tensor)]
        rows = len(next(iter(columns.values())))
        total = sum(int(value.numel()) * int(value.element_size()) for value in sizes)
        return max(8.0, total / (len(draws) * rows))


class GradientEngine:
    """Value and gradient of one scalar function of one draw, at many draws; not differentiable any further.

    Recorded with its backward pass where that can be recorded, else by autograd.
    """

    def __init__(self, single: Single, backend: str) -> None:
        self._plain = Engine(single, backend, UNRECORDED)
        slope = grad_and_value(single)

        def joined(flat: Tensor, columns: Columns) -> Tensor:
            gradient, value = slope(flat, columns)
            return torch.cat([gradient, value[None]])

        self._recorded = Engine(joined, "graph", REPEATED) if backend == "graph" else None

    def __call__(self, draws: Tensor, columns: Columns) -> tuple[Tensor, Tensor]:
        """Values ``(S,)`` and gradients ``(S, P)``, detached."""
        if self._recorded is not None:
            try:
                with torch.no_grad():
                    found = self._recorded(draws, columns)
                return found[:, -1], found[:, :-1]
            except RuntimeError:  # the backward pass cannot be recorded: autograd from now on
                self._recorded = None
        with torch.enable_grad():
            leaf = draws.detach().requires_grad_(True)
            value = self._plain(leaf, columns)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient


def _key(draws: Tensor, columns: Columns) -> Any:
    """What a graph depends on: shapes, dtypes and the device."""
    return (draws.shape, draws.device, *((name, c.shape, c.dtype) for name, c in columns.items()))


def moved(recorded: GraphModule, device: torch.device) -> None:
    """Moves a recorded graph: the model's constants, and every tensor that it makes."""
    recorded.to(device)
    for name, value in list(vars(recorded).items()):
        if isinstance(value, Tensor):
            setattr(recorded, name, value.to(device))
    for node in recorded.graph.nodes:
        node.kwargs = {key: device if isinstance(v, torch.device) else v for key, v in node.kwargs.items()}
    recorded.recompile()


def choose_backend(single: Single, draws: Tensor, columns: Columns) -> tuple[str, str]:
    """The fastest backend that agrees with running the model draw by draw, in value and derivatives.

    They must agree at the given rows and, by the same recorded graph, at the rows in reverse order, which shows a value
    that was recorded as a constant.

    Args:
        single: The function of one draw.
        draws: A few unconstrained draws, shape ``(S, P)``.
        columns: A few rows.

    Returns:
        The backend and, if it is not ``graph``, the reason why the faster ones were not taken.
    """
    points = [(draws, columns), (draws.flip(0), {name: column.flip(0) for name, column in columns.items()})]
    loop = Engine(single, "loop")
    reference = [derivatives(loop, *point) for point in points]
    reason = ""
    for backend in ("graph", "vmap"):
        engine = Engine(single, backend)
        try:
            found = [derivatives(engine, *point) for point in points]
        except Exception as error:  # vmap and the recording refuse by errors of many types: take the next backend
            reason = str(error).strip().split("\n")[0]
            continue
        if all(_agree(a, b) for a, b in zip(found, reference, strict=True)):
            return backend, reason
        reason = f"{backend} disagrees with running the model draw by draw"
    return "loop", reason


def derivatives(engine: Engine, draws: Tensor, columns: Columns) -> dict[str, Tensor | None]:
    """Value, gradient of its sum in the draws, one Hessian product, and gradients in every floating column.

    In the columns it is the gradient of a contrast between draws: terms without theta cancel in the log-ratio, and
    Pyro's Binomial leaves out the derivative of such a term.

    Returns:
        ``""``: the value; ``"draws"``, ``"curvature"`` and the columns' names: gradients, None where there is no path.
    """
    draws = draws.detach().clone().requires_grad_(True)
    floating = {name: c.detach().clone().requires_grad_(True) for name, c in columns.items() if c.is_floating_point()}
    with warnings.catch_warnings():
        # A model may look at a column's number, int(x.max()); torch's warning of it helps nobody.
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True")
        value = engine(draws, {**columns, **floating})
    found: dict[str, Tensor | None] = {"": value.detach(), "draws": None, "curvature": None}
    if not value.requires_grad:
        return {**found, **dict.fromkeys(floating)}
    slopes = torch.autograd.grad(value.sum(), draws, allow_unused=True, create_graph=True)
    found["draws"] = slopes[0]
    contrast = torch.linspace(-1.0, 1.0, len(draws), dtype=draws.dtype, device=draws.device)
    contrast = contrast @ value.reshape(len(draws), -1)
    if floating:
        along = torch.autograd.grad(contrast.sum(), list(floating.values()), allow_unused=True, retain_graph=True)
        found.update(zip(floating, along, strict=True))
    if slopes[0] is not None and slopes[0].requires_grad:
        direction = torch.cos(torch.arange(draws.numel(), dtype=draws.dtype, device=draws.device)).reshape(draws.shape)
        (found["curvature"],) = torch.autograd.grad((slopes[0] * direction).sum(), draws, allow_unused=True)
    return {name: None if slope is None else slope.detach() for name, slope in found.items()}


def _agree(a: dict[str, Tensor | None], b: dict[str, Tensor | None]) -> bool:
    for name, ours in a.items():
        theirs = b[name]
        if ours is None or theirs is None:
            present = theirs if ours is None else ours
            if present is not None and bool((present != 0).any()):
                return False
        elif not torch.allclose(ours, theirs, rtol=1e-8, atol=1e-8, equal_nan=True):
            return False
    return True


class HessianEngine:
    """Value, gradient and Hessian of one scalar function of one draw; None where they cannot be batched.

    Reverse mode over reverse mode, batched over the directions and recorded: the model runs once. Double backward over
    P copies of the point, which any backend can do, runs it P times.

    Args:
        single: The function ``(flat (P,), columns)``.
        backend: The task's; only ``graph`` is batched.
    """

    def __init__(self, single: Single, backend: str) -> None:
        def joined(flat: Tensor, columns: Columns) -> Tensor:
            def slope(point: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
                gradient, value = grad_and_value(single)(point, columns)
                return gradient, (gradient, value)

            hessian, (gradient, value) = jacrev(slope, has_aux=True)(flat)
            return torch.cat([hessian.flatten(), gradient, value[None]])

        self._engine = Engine(joined, "graph", UNRECORDED) if backend == "graph" else None

    def __call__(self, point: Tensor, columns: Columns) -> Expansion | None:
        """Value, gradient ``(P,)`` and Hessian ``(P, P)`` at a point ``(P,)``, detached."""
        if self._engine is None:
            return None
        try:
            with torch.no_grad():
                found = self._engine(point[None], columns)[0]
        except Exception:  # the transforms refuse by errors of many types: the caller's own way from now on
            self._engine = None
            return None
        dim = len(point)
        return found[-1], found[dim * dim : -1], found[: dim * dim].reshape(dim, dim)
