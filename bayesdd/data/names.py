"""What columns are called: elements of arrays in a table, selections of columns, and names that resemble others."""

import difflib
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from bayesdd.numerics.refusal import Refusal, WrongType

# A list of names, or column -> name, or names whose columns become the last axis of an array column.
Selection: TypeAlias = Sequence[str] | Mapping[str, str | Sequence[str]]

# Column -> place in it -> name in the source; () is the whole column.
Members: TypeAlias = dict[str, dict[tuple[int, ...], Any]]

QUERY = re.compile(r"\s*(select|with|from)\s", re.IGNORECASE)  # how a path that is none begins
_ELEMENT = re.compile(r"(.+?)\[\s*(\d+(?:\s*,\s*\d+)*)\s*\]")
MOST_AXES, MOST_DIGITS = 8, 6  # of an element, x[0,12]: an array of a million columns
ALIKE = 0.65  # share of letters that names have in common from which one may be meant for the other


def element(name: str, index: tuple[int, ...]) -> str:
    """How a table spells an element."""
    return f"{name}[{','.join(map(str, index))}]" if index else name


def free_name(name: str, taken: Container[str]) -> str:
    """A name, with as many underscores behind it as it takes to differ from those taken."""
    while name in taken:
        name += "_"
    return name


def members_of(header: Iterable[Any], where: str) -> Members:
    """Columns of a table, elements gathered into arrays, in the place of the first element."""
    found: Members = {}
    for raw in header:
        match = _ELEMENT.fullmatch(raw) if isinstance(raw, str) else None
        name, index = (match[1], _index(match[2], raw, where)) if match else (raw, ())
        group = found.setdefault(name, {})
        if group and (any(len(other) != len(index) for other in group) or group.get(index, raw) != raw):
            first = element(name, next(iter(group)))
            raise Refusal(f"{where}: column {raw!r} clashes with {first!r}; rename one")
        group[index] = raw
    return found


def _index(text: str, raw: str, where: str) -> tuple[int, ...]:
    places = [place.strip() for place in text.split(",")]
    if len(places) > MOST_AXES or any(len(place) > MOST_DIGITS for place in places):
        raise Refusal(f"{where}: column {raw[:60]!r} is no element of an array that fits any memory; rename it")
    return tuple(map(int, places))


def closest(name: str, names: Iterable[str]) -> str | None:
    """The name that most resembles another, whatever its case; None where none does."""
    lower = {other.lower(): other for other in names}
    found = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=ALIKE)
    return lower[found[0]] if found else None


def selected(
    members: Members, select: Selection, where: str, *, again: bool = False
) -> tuple[Members, dict[str, tuple[str, ...]]]:
    """The members of a selection, and the names that its array columns are made of.

    Raises:
        Refusal: It names a column twice, or one that is not there.
        WrongType: It is no list of names and no mapping.
    """
    asked = wanted(select)
    found: Members = {}
    parts: dict[str, tuple[str, ...]] = {}
    whole: Members = {raw: {(): raw} for group in members.values() for raw in group.values()}
    whole |= members
    for name, names in asked.items():
        absent = [one for one in ([names] if isinstance(names, str) else names) if one not in whole]
        if absent and again and name in members:
            found[name] = members[name]
        elif absent and again and len(absent) == len([names] if isinstance(names, str) else names):
            continue  # an outcome, which new rows need not have
        elif absent:
            near = closest(absent[0], map(str, whole))
            hint = f"did you mean {near!r}?" if near else f"it has {sorted(map(str, members))}"
            raise Refusal(f"{where}: columns= names {absent[0]!r}, which is not there: {hint}")
        elif isinstance(names, str):
            found[name] = whole[names]
        else:
            if arrays := [one for one in names if list(whole[one]) != [()]]:
                raise Refusal(f"{where}: columns= stacks single columns for {name!r}, but {arrays[0]!r} is an array")
            found[name] = {(i,): whole[one][()] for i, one in enumerate(names)}
            parts[name] = tuple(names)
    return found, parts


def weighing(members: Members, weight: str, where: str) -> dict[tuple[int, ...], Any]:
    """The column that holds how often each row counts.

    Raises:
        Refusal: It is not there.
        WrongType: It is named by no text.
    """
    if not isinstance(weight, str):
        raise WrongType(f"weight= takes the name of a column, got {type(weight).__name__}")
    if weight not in members:
        near = closest(weight, map(str, members))
        hint = f"did you mean {near!r}?" if near else f"it has {sorted(map(str, members))}"
        raise Refusal(f"{where}: weight= names {weight!r}, which is not there: {hint}")
    if list(members[weight]) != [()]:
        raise Refusal(f"{where}: weight= names {weight!r}, which has several numbers a row; it takes one")
    return members[weight]


def wanted(select: Selection) -> dict[str, str | list[str]]:
    """A selection as column -> name or names."""
    say = "columns= takes a list of names, or a mapping of argument to name or list of names"
    if isinstance(select, str) or not isinstance(select, Mapping | Iterable):
        raise WrongType(f"{say}, got {select!r}")
    pairs = list(select.items()) if isinstance(select, Mapping) else [(name, name) for name in select]
    if not pairs:
        raise Refusal("columns= is empty: name at least one column, or leave it out")
    found: dict[str, str | list[str]] = {}
    for name, names in pairs:
        some = [names] if isinstance(names, str) else list(names) if isinstance(names, Iterable) else [names]
        if bad := [one for one in (name, *some) if not isinstance(one, str)]:
            raise WrongType(f"{say}, got {bad[0]!r}")
        if twice := [one for one, times in Counter([*some, *([name] if name in found else [])]).items() if times > 1]:
            raise Refusal(f"columns= names {twice[0]!r} twice for {name!r}")
        if not some or name in found:
            raise Refusal(
                f"columns= names {'no column for ' if not some else ''}{name!r}{'' if not some else ' twice'}"
            )
        found[name] = names if isinstance(names, str) else some
    return found
