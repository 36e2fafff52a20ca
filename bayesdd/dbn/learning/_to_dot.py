"""A network in the language of Graphviz."""

from __future__ import annotations

import json

from bayesdd.dbn.learning._edges import Edges
from bayesdd.dbn.learning.arrows import Arrow, arrows, names_of
from bayesdd.dbn.template.template import Template


def to_dot(network: Template | Edges) -> str:
    """Text for ``dot -Tsvg``: one slice and the slice before, static variables as boxes.

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
    lines += [f"  {_before(name)} [label={_label(name)}, style=dashed];" for name in _earlier(found)]
    lines += [f"  {json.dumps(name, ensure_ascii=False)};" for name in template.variables]
    for parent, child, before, probability in found:
        tail = _before(parent) if before else json.dumps(parent, ensure_ascii=False)
        said = "" if isinstance(network, Template) else f' [label="{probability:.2f}", penwidth={2 * probability:.2f}]'
        lines.append(f"  {tail} -> {json.dumps(child, ensure_ascii=False)}{said};")
    return "\n".join([*lines, "}"]) + "\n"


def _earlier(found: list[Arrow]) -> list[str]:
    return list(dict.fromkeys(parent for parent, _, before, _ in found if before))


def _before(name: str) -> str:
    return json.dumps(f"{name} (t - 1)", ensure_ascii=False)


def _label(name: str) -> str:
    return json.dumps(f"{name}\nslice before", ensure_ascii=False)
