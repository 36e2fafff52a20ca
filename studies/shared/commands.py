"""``python -m studies.NAME``: the options are the keywords of the study's ``main``, their help is its docstring."""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from bayesdd import Refusal


def run(main: Callable[..., pd.DataFrame], **processes: Callable[..., Any]) -> None:
    """Runs a study from the command line; the exit status is 1 where a claim is not met.

    Args:
        main: The study. Claims are the rows of the table it returns, or of the table ``attrs["claims"]``.
        processes: What the study's own processes run, by option: ``--cell A B`` calls ``cell("A", "B")`` and prints
            what it returns as JSON, if anything.
    """
    page = inspect.getdoc(sys.modules[main.__module__]) or ""
    name = sys.modules["__main__"].__spec__.name.removesuffix(".__main__")  # type: ignore[union-attr]  # run by -m
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=page.partition("\n")[0])
    helps = _helps(main)
    for option, parameter in inspect.signature(main).parameters.items():
        parser.add_argument(f"--{option}", help=helps[option].replace("%", "%%"), **_kind(parameter.default))
    for option in processes:
        parser.add_argument(f"--{option}", nargs="+", help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    words = {option: asked for option in processes if (asked := given.pop(option)) is not None}
    for option, asked in words.items():
        if (found := processes[option](*asked)) is not None:
            print(json.dumps(found))
    if not words:
        try:
            table = main(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
        except Refusal as error:
            parser.error(str(error))
        claims = table.attrs.get("claims", table)
        sys.exit(int("met" in claims and bool(claims["met"].eq(False).any())))


def named(only: str, names: Iterable[str], what: str) -> list[str]:
    """The names that contain ``only``.

    Raises:
        Refusal: None does.
    """
    every = list(dict.fromkeys(names))
    if not (found := [name for name in every if only in name]):
        raise Refusal(f"no {what}'s name contains {only!r}; there are {', '.join(every)}")
    return found


def _kind(default: Any) -> Mapping[str, Any]:
    if isinstance(default, bool):
        return {"action": "store_true"}
    if isinstance(default, tuple):
        return {"nargs": "+", "type": type(default[0]), "default": default}
    return {"type": type(default) if isinstance(default, int | float) else str, "default": default}


def _helps(main: Callable[..., Any]) -> dict[str, str]:
    """Argument -> its lines in the docstring, and its default."""
    lines = (inspect.getdoc(main) or "").partition("Args:\n")[2].partition("\n\n")[0]
    found = {name: re.sub(r"\s+", " ", text) for name, text in re.findall(r"^ {4}(\w+): ((?:.|\n {8})*)", lines, re.M)}
    for name, parameter in inspect.signature(main).parameters.items():
        if parameter.default not in (False, "", None):
            found[name] += f" (default: {parameter.default})"
    return found
