"""What the site needs beyond Markdown: formulas as MathML, and docstrings without marks of reStructuredText."""

import re
from html import unescape
from typing import Any

import griffe
from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
DIRECTIVE = re.compile(r"^( *)\.\. math::[ \n]*?((?:.*\n?)(?:\n*\1 +.*\n?)*)", re.MULTILINE)


def on_page_content(html: str, **_: Any) -> str:
    """Formulas as MathML, which browsers draw without a script."""
    return FORMULA.sub(lambda m: convert(unescape(m[3]), display="block" if m[2] == "[" else "inline"), html)


class Plain(griffe.Extension):
    """Docstrings as Markdown: formulas between dollars, roles and literal marks as code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of whatever was read."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """A docstring without directives and roles."""
    text = DIRECTIVE.sub(_formula, text)
    text = re.sub(r":(?:class|func|meth|mod):`~?([^`]+)`", r"`\1`", text)
    return re.sub(r"(?<=\S)::$", ":", text, flags=re.MULTILINE)


def _formula(found: re.Match[str]) -> str:
    indent, body = found[1], " ".join(found[2].split())
    return f"{indent}$$\n{indent}{body}\n{indent}$$\n\n"
