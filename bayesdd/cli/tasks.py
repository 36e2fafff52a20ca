"""The task that a command line names: in a module or a file, a Task, a function that returns one, or a Pyro model."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bayesdd.data.files import one_line
from bayesdd.data.names import closest
from bayesdd.numerics.refusal import MissingPackage, Refusal, WrongType

if TYPE_CHECKING:
    from bayesdd.task.task import Task


def check_name(task: str) -> None:
    """Refuses a name that cannot be one, and a file that is not there, before anything is imported.

    Raises:
        FileNotFoundError: There is no such file.
        Refusal: It is no name of a task, or of a file elsewhere.
    """
    where, colon, name = task.partition(":")
    if not (where and colon and name):
        raise Refusal(f"a task is named module:function (clinic:task, clinic.py:task), not {task}")
    parts = Path(where).parts
    if os.path.isabs(where) or any(part.startswith(".") for part in parts):
        raise Refusal(f"{where}: a task's file is found below the working directory; go there and name it alone")
    if not _is_file(where):
        return
    if not Path(where).is_file():
        raise FileNotFoundError(f"{where}: no such file")
    if Path(where).suffix != ".py" or "." in Path(where).stem:
        raise Refusal(f"{where}: the file is imported as a module; call it by a name without dots that ends in .py")


def made(arguments: argparse.Namespace) -> Task:
    """The task, on the rows of ``--data`` where they are given.

    Raises:
        MissingPackage: The module cannot be imported.
        Refusal: It has no such name, or is another one than the file that was named.
        WrongType: What it names makes no task.
    """
    from bayesdd.task.task import Task

    where, _, name = arguments.task.partition(":")
    module = _imported(where)
    if not hasattr(module, name):
        near = closest(name, [one for one in vars(module) if not one.startswith("_")])
        hint = f"did you mean {where}:{near}?" if near else "name a Task in it, or a function that returns one"
        raise Refusal(f"module {where} has no {name!r}; {hint}")
    for option in ("columns", "weight"):
        if getattr(arguments, option) and not arguments.data:
            raise Refusal(f"--{option} names columns of --data, which is not given")
    columns = dict(arguments.columns) if arguments.columns else None
    found = getattr(module, name)
    if isinstance(found, type):
        raise WrongType(f"{arguments.task} is a class: name a Task, a function, or an object of it that is a model")
    if callable(found):
        found, model = _called(found, arguments), found
        if not isinstance(found, Task) and arguments.data:
            try:
                return Task(model, arguments.data, columns=columns, weight=arguments.weight)
            except Refusal as error:
                why = f": without arguments it fails, {one_line(found)}" if isinstance(found, Exception) else ""
                raise Refusal(
                    f"{one_line(error)} ({arguments.task} was taken for a Pyro model of --data{why})"
                ) from error
    if not isinstance(found, Task):
        raise WrongType(f"{arguments.task} must be a bayesdd.Task or return one, not {type(found).__name__}")
    return found.with_data(arguments.data, columns, arguments.weight) if arguments.data else found


def _is_file(where: str) -> bool:
    return where.lower().endswith(".py") or os.sep in where


def _imported(where: str) -> ModuleType:
    file = Path(where) if _is_file(where) else None
    try:
        module = importlib.import_module(where if file is None else ".".join(file.with_suffix("").parts))
    except ImportError as error:
        raise MissingPackage(f"module {where} cannot be imported from {os.getcwd()}: {one_line(error)}") from error
    other = getattr(module, "__file__", None) or "one of Python's own"
    if file is not None and Path(other).resolve() != file.resolve():
        raise Refusal(f"{where}: another module has this name, {other}; call the file otherwise")
    return module


def _called(found: Any, arguments: argparse.Namespace) -> Any:
    """What a function returns, or why it fails; None of one that takes the columns of ``--data``, which is a model.

    Raises:
        WrongType: It takes arguments, and there are none.
    """
    try:
        parameters = inspect.signature(getattr(found, "forward", found)).parameters.values()
    except (TypeError, ValueError):
        raise WrongType(f"{arguments.task} is no function of Python's own kind: name a Task or a function") from None
    required = [p.name for p in parameters if p.default is p.empty and "VAR" not in p.kind.name]
    if required and not arguments.data:
        raise WrongType(
            f"{arguments.task} needs arguments ({', '.join(required)}): if it is a Pyro model, name its rows by "
            "--data; a function that returns a Task takes none, or has defaults"
        )
    if required:
        return None
    if not (arguments.data and parameters):
        return found()
    try:
        return found()
    except Exception as error:  # of a model whose columns have defaults; should it be none either, this is told
        return error
