"""Recording a function of tensors as a graph of the operations that it calls, without the Python between them.

The function runs once, on real values, under a dispatch mode: below Pyro, vmap and gradients, where plain tensors meet
plain operations. ``make_fx`` does the same for compilers; here a recording costs little more than the run, and none of
the second that a compiler's imports take.

What a graph could not repeat raises ``RuntimeError``: a number read out of the data (``.item()``, ``int(g.max())``), a
shape that follows from values (``x[y > 0]``).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.node import map_aggregate
from torch.nn import Module
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


def recorded(function: Callable[..., Tensor], given: Sequence[Tensor]) -> tuple[Module, Graph]:
    """The constants and the graph of ``function(*given)``, for any tensors of the same shapes and dtypes.

    ``GraphModule(*recorded(...))`` can be called.

    Every node's ``meta["val"]`` has the shape, strides and dtype of its result, on the meta device.

    Args:
        function: Takes tensors, returns one.
        given: Plain tensors on the CPU.

    Raises:
        RuntimeError: The function reads numbers or shapes out of its arguments' values.
    """
    recorder = _Recorder(given)
    with recorder:
        result = function(*given)
    recorder.graph.output(recorder.node_of(result))
    return recorder.root, recorder.graph


class _Recorder(TorchDispatchMode):
    """Runs every operation, and notes it as a node of the graph."""

    def __init__(self, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.graph, self.root = Graph(), Module()
        # Tensors stay alive beside their nodes: else another one could get the same id, or the same memory.
        self.nodes: dict[int, tuple[Node, Tensor]] = {}
        self.given = {_memory(tensor) for tensor in given}
        self.made: set[int] = set()  # memory of results
        self.varying = set(self.given)  # memory of what follows from the arguments
        for place, tensor in enumerate(given):
            self._note(tensor, self.graph.placeholder(f"given{place}"))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to be skipped by a compiler costs torch the import of that compiler, a second and more."""
        return False

    def node_of(self, tensor: Tensor) -> Node:
        """The node of a tensor; a new one for a constant, which no operation made."""
        if id(tensor) not in self.nodes:
            if (memory := _memory(tensor)) in self.made and memory not in self.given:
                raise RuntimeError("a computed value comes back as another tensor, by a way that cannot be recorded")
            name = f"constant{len(self.nodes)}"
            self.root.register_buffer(name, tensor.detach())
            self._note(tensor, self.graph.get_attr(name))
        return self.nodes[id(tensor)][0]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        varying = self._varies((args, kwargs))
        if varying and torch.Tag.data_dependent_output in func.tags:
            raise RuntimeError(f"{func} reads a number out of a value of the data")
        if varying and torch.Tag.dynamic_output_shape in func.tags and self._varies(_shaping(func, args)):
            raise RuntimeError(f"{func} makes a shape of a value of the data")
        if func is aten.lift_fresh.default:
            func = aten.lift_fresh_copy.default  # what changes a new constant in place leaves the kept one alone
        arguments = cast(Any, map_aggregate((args, kwargs), self._replaced))
        result = func(*args, **kwargs)
        results = list(_tensors(result))
        if not results:  # the number of a constant, a comparison of shapes, a check
            return result
        node = self.graph.call_function(func, *arguments)
        for tensor in results:
            self.made.add(_memory(tensor))
            if varying:
                self.varying.add(_memory(tensor))
        if isinstance(result, Tensor):
            self._note(result, node)
        else:
            for place, part in enumerate(result):
                if isinstance(part, Tensor):
                    self._note(part, self.graph.call_function(operator.getitem, (node, place)))
        return result

    def _varies(self, given: Any) -> bool:
        return any(_memory(tensor) in self.varying for tensor in _tensors(given))

    def _replaced(self, given: Any) -> Any:
        return self.node_of(given) if isinstance(given, Tensor) else given

    def _note(self, tensor: Tensor, node: Node) -> None:
        self.nodes[id(tensor)] = node, tensor
        node.meta["val"] = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


@functools.cache
def _composite(func: Any) -> bool:
    """Whether the operation is nothing but others."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _tensors(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, (tuple, list)):
        for part in given:
            yield from _tensors(part)
    elif isinstance(given, dict):
        for part in given.values():
            yield from _tensors(part)


def _shaping(func: Any, args: Any) -> list[Tensor]:
    """The arguments whose values make the result's shape: of an index, the masks."""
    if func is aten.index.Tensor:
        return [index for index in _tensors(args[1]) if index.dtype in (torch.bool, torch.uint8)]
    return list(_tensors(args))
