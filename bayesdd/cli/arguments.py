"""Commands and options of the command line, their types, and the names of objectives."""

import argparse
import importlib
import inspect
import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

from bayesdd.data.names import closest

# Name -> function of bayesdd.objectives and settings. Imported when asked for, so that `--help` is quick.
OBJECTIVES: dict[str, tuple[str, dict[str, float]]] = {
    "half_variance": ("half_variance", {}),
    "reverse_kl": ("reverse_kl", {}),
    "forward_kl": ("forward_kl", {}),
    "renyi_half": ("renyi", {"alpha": 0.5}),
    "renyi_two": ("renyi", {"alpha": 2.0}),
    "fisher": ("fisher", {}),
    "draws_forward_kl": ("draws_forward_kl", {}),
    "bilevel": ("bilevel", {}),
}


COMPLETION = (
    "Completion of commands and options in bash or zsh: pip install argcomplete, then put "
    'eval "$(register-python-argcomplete bayesdd)" into the shell\'s start-up file.'
)


def objective(name: str) -> Callable[..., Any]:
    """The objective of a name in ``OBJECTIVES``."""
    function, settings = OBJECTIVES[name]
    found: Callable[..., Any] = getattr(importlib.import_module("bayesdd.objectives"), function)
    return partial(found, **settings) if settings else found


class _Parser(argparse.ArgumentParser):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """As argparse, which lists what there is, but the nearest name first."""
        if action.choices is not None and value not in action.choices:
            names = list(map(str, action.choices))
            near = closest(str(value), names)
            hint = f"did you mean {near!r}?" if near else f"choose from {', '.join(names)}"
            raise argparse.ArgumentError(action, f"there is no {value!r}: {hint}")

    def error(self, message: str) -> NoReturn:
        if os.environ.get("RANK", "0") != "0":  # all ranks have the same arguments, so the first alone prints
            self.exit(2)
        self.exit(2, f"bayesdd: error: {message}; see {self.prog} --help\n")


def parser(commands: Mapping[str, Callable[[argparse.Namespace], int]]) -> argparse.ArgumentParser:
    """The parser of all commands; a command's help is the first line of its docstring, its example the last."""
    whole = _Parser(prog="bayesdd", description="Bayesian dataset distillation.", epilog=COMPLETION)
    version = importlib.import_module("bayesdd").__version__
    whole.add_argument("--version", action="version", version=f"bayesdd {version}")
    added = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    made = {}
    for name, run in commands.items():
        text, _, example = (inspect.getdoc(run) or "").partition("\n\n")
        made[name] = added.add_parser(name, help=text, description=text, epilog=f"example:\n  {example}")
        made[name].formatter_class = argparse.RawDescriptionHelpFormatter
        made[name].set_defaults(command=name, init=None, distilled=None)
        if name == "new":
            made[name].add_argument("file", help="the file to write (.py), which must not exist yet")
            made[name].add_argument("--study", action="store_true", help="a small study in place of a task")
            continue
        made[name].add_argument(
            "task",
            help="module:function or file.py:function: a Task, a function that returns one, with --data a Pyro model",
        )
        made[name].add_argument(
            "--data",
            help="rows that replace the task's own: a file (.nc, .zarr, .npz, .csv, .parquet, .arrow), a folder or a "
            "pattern of the last two ('rows/*.parquet'), or a query of DuckDB (\"SELECT ... FROM 'rows/*.parquet'\")",
        )
        made[name].add_argument(
            "--columns",
            nargs="+",
            type=_column,
            metavar="NAME",
            help="columns of --data to use: names, or argument=column, or argument=column,column (an array column); "
            "default: those that the model takes",
        )
        made[name].add_argument("--weight", metavar="NAME", help="column of --data that says how often a row counts")
        made[name].add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
        made[name].add_argument(
            "--patience", type=_seconds, default=60.0, help="seconds to wait for another rank (torchrun); default: 60"
        )

    add = made["distill"].add_argument
    add("--size", type=_size, help="number of synthetic rows, or third: as many as match third order")
    add("--tolerance", type=_nats, help="KL in nats to reach; without --size, by the smallest size that does")
    add("--seed", type=int, default=0, help="default: 0")
    add("--objective", choices=sorted(OBJECTIVES), default="half_variance", help="default: half_variance")
    add("--init", help="start from an earlier distilled set (.nc)")
    add("--equal-weights", action="store_true", help="one common weight, for tools that take no weights")
    add("--fixed-rows", action="store_true", help="keep the rows where they start, optimise weights only")
    add(
        "--whole", action="store_true", help="whole outcomes: values that occur, held, for tools that take no fractions"
    )
    add("--stratify", metavar="NAME", help="column of few values, each of which a starting row has, however rare")
    add("--quiet", action="store_true", help="no progress")
    add("--json", action="store_true", help="print the verdict as one JSON object, and nothing else")
    add("--out", required=True, help="file to write (.nc)")

    add = made["sample"].add_argument
    add("--distilled", help="distilled set (.nc)")
    add("--draws", type=_count, default=1000, help="draws a chain; default: 1000")
    add("--chains", type=_count, default=4, help="default: 4")
    add("--seed", type=int, default=0, help="default: 0")
    add("--method", choices=("hmc", "nuts", "laplace"), help="default: chosen by bayesdd")
    add("--log-likelihood", action="store_true", help="of every real row at every draw, for loo and compare")
    add("--corrected", action="store_true", help="draws of a distilled set corrected to the posterior of all rows")
    add("--out", required=True, help="file to write (.nc)")

    add = made["certify"].add_argument
    add("--distilled", required=True, help="distilled set (.nc)")
    add("--tolerance", type=_nats, help="KL in nats that counts as certified; default: 0.05")
    add("--seed", type=int, default=1, help="default: 1; not the one it was distilled with")
    add("--json", action="store_true", help="print the verdict as one JSON object, and nothing else")
    add("--out", help="also write the set with its new certificate (.nc)")

    add = made["report"].add_argument
    add("--distilled", required=True, help="distilled set with a certificate (.nc)")
    add("--full", help="draws given all rows that `bayesdd sample` wrote (.nc); default: they are drawn now")
    add("--draws", type=_count, default=300, help="draws a chain of each posterior; default: 300")
    add("--seed", type=int, default=0, help="default: 0")
    add("--out", default="report.html", help="page to write (.html), which must not exist yet; default: report.html")
    return whole


def completed(whole: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser, after it has answered a shell that asks for completions."""
    if "_ARGCOMPLETE" in os.environ:
        try:
            argcomplete = importlib.import_module("argcomplete")
        except ImportError:
            return whole
        argcomplete.autocomplete(whole)
    return whole


def _size(text: str) -> int | str:
    return text if text == "third" else _count(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"needs a whole number of at least 1, got {text!r}")
    return int(text)


def _nats(text: str) -> float:
    return _positive(text, "nats")


def _column(text: str) -> tuple[str, str | list[str]]:
    """``y``, ``y=died`` or ``x=age,bmi`` as an argument and what it is made of."""
    name, equals, names = text.partition("=")
    parts = names.split(",") if equals else [name]
    if not name or not all(parts) or ("," in name and not equals):
        raise argparse.ArgumentTypeError(f"needs names apart by spaces, or argument=column,column, got {text!r}")
    return name, parts if len(parts) > 1 else parts[0]


def _seconds(text: str) -> float:
    return _positive(text, "seconds")


def _positive(text: str, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"needs a positive number of {unit}, got {text!r}")
    return value
