"""What an object says of itself: a line, then names and values; as text in a terminal, as a table in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

MOST = 8  # names that are listed; after them their number


class Described:
    """What says of itself, in a terminal and in a notebook, what its ``_said`` holds: a line, then names and values."""

    @property
    def _said(self) -> tuple[str, dict[str, str]]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return text(*self._said)

    def _repr_html_(self) -> str:
        return html(*self._said)


def text(head: str, lines: Mapping[str, str]) -> str:
    """The line, and the others indented below it."""
    width = max(map(len, lines), default=0)
    return "\n".join([head, *(f"  {name:<{width}}  {value}" for name, value in lines.items())])


def html(head: str, lines: Mapping[str, str]) -> str:
    """The same for a notebook, everything escaped; what precedes a colon in the first line stands out."""
    bold, colon, rest = head.partition(": ")
    return f"<p><b>{escape(bold)}</b>{escape(colon + rest)}</p>{rows(lines)}"


def rows(lines: Mapping[str, str]) -> str:
    """A table of names and values."""
    found = (
        f'<tr><th style="text-align: left">{escape(name)}</th><td style="text-align: left">{escape(value)}</td></tr>'
        for name, value in lines.items()
    )
    return f"<table>{''.join(found)}</table>"


def listed(names: Iterable[Any]) -> str:
    """Names with commas between them, the first few of many."""
    some = [str(name) for name in names]
    return ", ".join(some[:MOST]) + (f" and {len(some) - MOST} more" if len(some) > MOST else "") if some else "none"


def sized(name: str, shape: Iterable[int]) -> str:
    """A name with its shape, where it has one."""
    some = tuple(shape)
    return f"{name} {some}" if some else name
