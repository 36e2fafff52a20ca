"""A network in the language of Graphviz."""

from __future__ import annotations

import json

from bayesdd.dbn.learning._edges import Edges
from bayesdd.dbn.learning.arrows import Arrow, arrows, names_of
from bayesdd.dbn.template.structure import Node
from bayesdd.dbn.template.template import Template


def to_dot(network: Template | Edges) -> str:
    """Text for ``dot -Tsvg``: one slice and those before it, static variables as boxes.

    Args:
        network: A template, or what ``dbn.edges`` returned: its edges carry their probabilities, those below 0.1 left
            out.

    Raises:
        WrongType: Something else came.
    """
    found, template = arrows(network), names_of(network)
    # JSON's strings are Graphviz's: quoted, with quotes inside escaped.
    lines = ["digraph network {", "  rankdir=LR;", "  node [shape=ellipse];"]
    lines += [f"  {json.dumps(name, ensure_ascii=False)} [shape=box];" for name in template.static]
    lines += [f"  {_before(*node)} [label={_label(*node)}, style=dashed];" for node in _earlier(found)]
    lines += [f"  {json.dumps(name, ensure_ascii=False)};" for name in template.variables]
    for parent, child, lag, probability in found:
        tail = _before(parent, lag) if lag else json.dumps(parent, ensure_ascii=False)
        said = "" if isinstance(network, Template) else f' [label="{probability:.2f}", penwidth={2 * probability:.2f}]'
        lines.append(f"  {tail} -> {json.dumps(child, ensure_ascii=False)}{said};")
    return "\n".join([*lines, "}"]) + "\n"


def _earlier(found: list[Arrow]) -> list[Node]:
    return list(dict.fromkeys((one.parent, one.lag) for one in found if one.lag))


def _before(name: str, lag: int) -> str:
    return json.dumps(f"{name} (t - {lag})", ensure_ascii=False)


def _label(name: str, lag: int) -> str:
    return json.dumps(f"{name}\n{'slice' if lag == 1 else f'{lag} slices'} before", ensure_ascii=False)
