"""Recorded graphs with the same result from fewer operations.

On a few rows a step costs what its operations cost to call, a few microseconds each, and half of those that
``torch.func`` and Pyro leave in a graph do nothing: views of the same shape, zeros added, constants computed at every
call, the same slice taken ten times. A compiler would do more, but needs seconds a shape where this needs tenths. The
order of arithmetic stays, and so does every digit (but autograd, through such a graph, may sum the parts of a gradient
in another order, and rows that are multiplied by a matrix that they share, of which ``vmap`` makes a copy for each, are
multiplied at once). A gradient takes half to two thirds of the time.
"""

from __future__ import annotations

import operator
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.node import map_arg
from torch.nn import Module

aten = torch.ops.aten
MOST_KEPT = 2**16  # elements of a constant that a graph keeps

# Where shape, strides and dtype stay, these return what they were given.
VIEWS = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.expand.default,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.slice.Tensor,
    aten.alias.default,
    aten._to_copy.default,
    aten.clone.default,
}
COPIES = {aten._unsafe_view.default, aten.view.default, aten.reshape.default, aten.clone.default}
BY_SHAPE = {  # these need only the shape of their first argument
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
}
NEUTRAL = {  # the number that changes nothing, and whether it may stand on the left as well
    aten.add.Tensor: (0, True),
    aten.sub.Tensor: (0, False),
    aten.mul.Tensor: (1, True),
    aten.div.Tensor: (1, False),
}
# A call of torch.add takes less time to begin than one of torch.ops.aten.add.Tensor.
QUICKER = {
    "abs", "add", "bmm", "cat", "clamp", "cos", "div", "eq", "exp", "expm1", "ge", "gt", "le", "log", "log1p",
    "logical_and", "lt", "mm", "mul", "ne", "neg", "permute", "pow", "reciprocal", "rsqrt", "select", "sigmoid",
    "sin", "sqrt", "squeeze", "stack", "sub", "sum", "t", "tanh", "transpose", "unsqueeze", "where",
}  # fmt: skip
QUICKER_METHODS = {"expand", "view"}


def simplify(root: Module, graph: Graph) -> None:
    """Simplifies a recorded graph in place: constants computed, repeated and idle operations left out.

    Constants are read from ``root`` and put there.

    A graph that changes tensors in place is left as it is, unless nothing else uses them.
    """
    nodes = list(graph.nodes)
    if all([_out_of_place(node) for node in nodes]):
        constants: dict[Node, Any] = {}
        seen: dict[Any, Node] = {}
        for node in nodes:
            if node.op == "get_attr":
                constants[node] = operator.attrgetter(str(node.target))(root)
            elif node.op == "call_function" and not _folded(node, constants):
                same = _idle(node, constants) or seen.setdefault(_key(node), node)
                if same is not node:
                    node.replace_all_uses_with(same)
        _keep(root, graph, constants)
        for node in graph.find_nodes(op="call_function", target=aten.bmm.default):
            _at_once(graph, node)
        _own(graph)
    graph.eliminate_dead_code()
    for node in graph.nodes:
        _quicker(node)


def _out_of_place(node: Node) -> bool:
    """Whether the operation changes no tensor; where possible it is first replaced by one that does not."""
    schema = _schema(node)
    if schema is None or not schema.is_mutable:
        return True
    changed, target = node.args[0], cast(Any, node.target)
    name = schema.name.removeprefix("aten::")
    made = _schema(changed) if isinstance(changed, Node) and len(changed.users) == 1 else None
    # Memory that others use: that of an input or a constant, or a possible view of one.
    if made is None or any(result.alias_info is not None for result in made.returns):
        return False
    # In place a result keeps its dtype, elsewhere it is promoted.
    dtypes = {getattr(_value(given), "dtype", None) for given in node.all_input_nodes}
    other = getattr(getattr(aten, name.removesuffix("_"), None), target._overloadname, None)
    if len(dtypes) > 1 or not name.endswith("_") or other is None:
        return False
    node.target = other
    return True


def _folded(node: Node, constants: dict[Node, Any]) -> bool:
    """Computes an operation on constants alone, if its result is not large; whether it did."""
    value = _value(node)
    if value is None or value.numel() > MOST_KEPT or _random(node):
        return False
    asked = node.all_input_nodes
    if node.target in BY_SHAPE and _value(asked[0]) is not None:
        asked = asked[1:]
    if any(given not in constants for given in asked):
        return False

    def known(given: Node) -> Any:
        if given in constants:
            return constants[given]
        like = cast(Tensor, _value(given))  # only its shape is needed
        return torch.empty((), dtype=like.dtype, device="cpu").expand(like.shape)

    with torch.no_grad():
        constants[node] = cast(Any, node.target)(*map_arg(node.args, known), **map_arg(node.kwargs, known))
    return True


def _idle(node: Node, constants: dict[Node, Any]) -> Node | None:
    """The argument that the operation returns as it is."""
    if node.target in VIEWS:
        return _same(node.args[0], node, constants)
    if node.target in NEUTRAL and len(node.args) == 2 and not node.kwargs:
        number, either = NEUTRAL[node.target]
        for given, other in [node.args, node.args[::-1]][: 1 + either]:
            known = constants.get(other) if isinstance(other, Node) else other
            same = None if known is None else _same(given, node, constants)
            if same is not None and bool((torch.as_tensor(known) == number).all()):
                return same
    return None


def _same(given: Any, node: Node, constants: dict[Node, Any]) -> Node | None:
    """The argument, if it looks like the result."""
    if not isinstance(given, Node) or given in constants:
        return None
    like, value = _value(given), _value(node)
    if like is None or value is None:
        return None
    looks = [(t.shape, t.stride(), t.dtype, t.device) for t in (like, value)]
    return given if looks[0] == looks[1] else None


def _at_once(graph: Graph, node: Node) -> None:
    """Multiplies all rows of a draw by a matrix that they share, where the matrix would be copied for each of them."""
    left, right = node.args
    if not isinstance(left, Node) or not isinstance(right, Node):
        return
    copied, rows, matrix = right, _value(left), _value(right)
    while copied.target in COPIES and isinstance(copied.args[0], Node):
        cloned, copied = copied.target is aten.clone.default, copied.args[0]
        value = _value(copied)
        if cloned and value is not None and value.dim() == 4 and value.stride(1) == 0 and rows is not None:
            break
    else:
        return
    draws, each, *inner = value.shape
    if matrix is None or each == 1 or (draws * each, *inner) != tuple(matrix.shape):
        return
    with graph.inserting_before(node):
        one = graph.call_function(aten.select.int, (copied, 1, 0))
        many = graph.call_function(aten.reshape.default, (left, [draws, each * rows.shape[1], inner[0]]))
        product = graph.call_function(aten.bmm.default, (many, one))
        found = graph.call_function(aten.reshape.default, (product, [draws * each, rows.shape[1], inner[1]]))
    found.meta = dict(node.meta)
    node.replace_all_uses_with(found)


def _value(node: Node) -> Tensor | None:
    """The result as it was noted: shape, strides and dtype."""
    value = node.meta.get("val")
    return value if isinstance(value, Tensor) else None


def _schema(node: Node) -> Any:
    return getattr(node.target, "_schema", None) if node.op == "call_function" else None


def _random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _key(node: Node) -> Any:
    """What an operation's result depends on; a random one equals only itself."""
    return node if _random(node) else (node.target, _hashable(node.args), _hashable(node.kwargs))


def _hashable(given: Any) -> Any:
    if isinstance(given, (list, tuple)):
        return tuple(map(_hashable, given))
    if isinstance(given, dict):
        return tuple((name, _hashable(value)) for name, value in sorted(given.items()))
    return given if isinstance(given, Node) else (type(given), repr(given))  # 0.0 is not -0.0


def _keep(root: Module, graph: Graph, constants: dict[Node, Any]) -> None:
    """Puts constants where operations on other things need them."""
    for count, (node, value) in enumerate(constants.items()):
        if node.op == "get_attr" or all(user in constants for user in node.users):
            continue
        root.register_buffer(f"folded{count}", value)
        with graph.inserting_after(node):
            kept = graph.get_attr(f"folded{count}")
        kept.meta = dict(node.meta)
        node.replace_all_uses_with(kept, delete_user_cb=lambda user: user not in constants)


def _own(graph: Graph) -> None:
    """Copies results that are inputs or constants of the graph, so that the caller may change them."""
    (output,) = graph.find_nodes(op="output")
    for given in output.all_input_nodes:
        if given.op != "call_function":
            with graph.inserting_before(output):
                output.replace_input_with(given, graph.call_function(aten.clone.default, (given,)))


def _quicker(node: Node) -> None:
    """Calls the operation by torch's own function, where it has the same arguments."""
    schema = _schema(node)
    if schema is None or schema.is_mutable or node.kwargs.keys() - {"dtype"}:
        return
    name = schema.name.removeprefix("aten::")
    if name in QUICKER:
        node.target = getattr(torch, name)
    elif name in QUICKER_METHODS:
        node.op, node.target = "call_method", name
