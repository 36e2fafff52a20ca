"""The command line: `bayesdd new`, `distill`, `certify`, `sample`, `report`.

A task is named `module:function` or `file.py:function`: a Task, a function without required arguments that returns one,
or with `--data` a Pyro model of these rows; the working directory is importable. Exit codes: 0 fine, 1 not certified,
2 misuse (told in one line), 130 interrupted.

torch and Pyro, which take seconds, are imported only after arguments and paths have been checked.
"""

import argparse
import glob
import importlib
import json
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bayesdd.cli.arguments import completed, objective, parser
from bayesdd.cli.new import STUDY, TASK
from bayesdd.cli.tasks import check_name, made
from bayesdd.data.files import claimed, one_line, vacant, writable
from bayesdd.data.names import QUERY
from bayesdd.numerics.refusal import Refusal

if TYPE_CHECKING:
    from bayesdd.data import Certificate, Distilled, PredictiveCertificate
    from bayesdd.task.task import Task

_NEXT = "bayesdd distill {}:task --size 20 --out d.nc"
MISTAKES = (Refusal, OSError, MemoryError)  # one line each; any other error is a fault of ours, with its traceback

# Set by torchrun. The first rank alone writes and prints.
_MANY = int(os.environ.get("WORLD_SIZE", "1")) > 1
_FIRST = os.environ.get("RANK", "0") == "0"


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = argparse.Namespace(out=None)
    _local_modules_last()
    try:
        arguments = completed(parser(COMMANDS)).parse_args(argv)
        with warnings.catch_warnings():
            warnings.showwarning = _warned
            if _MANY:
                return _with_others(arguments)
            _check_paths(arguments)
            with claimed(arguments.out) if getattr(arguments, "out", None) else nullcontext():
                return COMMANDS[arguments.command](arguments)
    except KeyboardInterrupt:
        kept = _resume(arguments.out)
        _say("interrupted; " + (f"the same command resumes from {kept}" if kept.exists() else "nothing was written"))
        return 130
    except MISTAKES as error:
        _say(f"error: {one_line(error)}")
        return 2


def _local_modules_last() -> None:
    """The working directory at the end of the path: a task's own modules are found, nothing installed is shadowed."""
    here = os.getcwd()
    sys.path[:] = [*(path for path in sys.path if os.path.realpath(path or here) != os.path.realpath(here)), here]


def _with_others(arguments: argparse.Namespace) -> int:
    """Runs the command as one rank of several; where paths or tasks differ all stop, and one line says why."""
    from bayesdd.density.ranks import joined

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what torchrun sends when another rank has died
    with joined(arguments.device, arguments.patience) as ranks:
        ranks.agreed(lambda: _check_paths(arguments), MISTAKES)
        with claimed(arguments.out) if arguments.out and _FIRST else nullcontext():
            return COMMANDS[arguments.command](arguments)


def new(arguments: argparse.Namespace) -> int:
    """Write a commented file to start from: a task (a model and its rows), or by --study a question put to one.

    bayesdd new clinic.py
    """
    path = Path(arguments.file)
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise Refusal(f"new {path}: the file becomes a Python module; call it by letters and end it in .py (clinic.py)")
    try:
        with writable(path).open("x") as file:
            file.write((STUDY if arguments.study else TASK).format(name=path.stem))
    except FileExistsError as error:
        raise FileExistsError(f"new {path}: this file exists already; name another one") from error
    _tell(f"wrote {path}; next: " + (f"python {path}" if arguments.study else _NEXT.format(path.stem)))
    return 0


def distill(arguments: argparse.Namespace) -> int:
    """Turn a task's rows into a few weighted synthetic ones.

    bayesdd distill clinic:task --size 20 --seed 0 --out d.nc
    """
    from bayesdd.data import Distilled
    from bayesdd.distillation import distill

    task = _task(arguments)
    checkpoint = _resume(arguments.out)
    result = distill(
        task,
        arguments.size,
        arguments.tolerance,
        seed=arguments.seed,
        objective=objective(arguments.objective),
        init=Distilled.from_netcdf(arguments.init) if arguments.init else None,
        device=arguments.device,
        progress=not arguments.quiet,
        equal_weights=arguments.equal_weights,
        move_rows=not arguments.fixed_rows,
        whole_outcomes=arguments.whole,
        stratify=arguments.stratify,
        checkpoint=checkpoint,
    )
    _write(result.to_netcdf, arguments.out)
    if _FIRST:
        checkpoint.unlink(missing_ok=True)
    return _verdict(arguments, result, result.certificate, task)


def sample(arguments: argparse.Namespace) -> int:
    """Draw from the posterior of a distilled set, or of the full data without --distilled.

    bayesdd sample clinic:task --distilled d.nc --out posterior.nc
    """
    from bayesdd.data import Distilled
    from bayesdd.posterior import arviz, sample

    task = _task(arguments)
    distilled = Distilled.from_netcdf(arguments.distilled) if arguments.distilled else None
    method = getattr(importlib.import_module("bayesdd.inference"), arguments.method) if arguments.method else None
    draws, chains, checkpoint = arguments.draws, arguments.chains, _resume(arguments.out)
    idata = sample(
        task,
        distilled,
        draws=draws,
        chains=chains,
        seed=arguments.seed,
        method=method,
        log_likelihood=arguments.log_likelihood,
        corrected=arguments.corrected,
        device=arguments.device,
        checkpoint=checkpoint,
    )
    _write(lambda path: arviz.write(idata, path), arguments.out)
    if _FIRST:
        checkpoint.unlink(missing_ok=True)
    of = f"{len(distilled):,} weighted rows" if distilled is not None else f"all {task.size:,} rows"
    _tell(f"wrote {arguments.out}: {chains} chains of {draws:,} draws given {of}")
    return 0


def certify(arguments: argparse.Namespace) -> int:
    """Say in nats how far a distilled set's posterior is from that of the full data.

    bayesdd certify clinic:task --distilled d.nc
    """
    from bayesdd.certificate import certify
    from bayesdd.data import Distilled

    task = _task(arguments)
    distilled = Distilled.from_netcdf(arguments.distilled)
    certificate = certify(task, distilled, seed=arguments.seed, tolerance=arguments.tolerance, device=arguments.device)
    if arguments.out:
        _write(replace(distilled, certificate=certificate).to_netcdf, arguments.out)
    return _verdict(arguments, distilled, certificate, task)


def report(arguments: argparse.Namespace) -> int:
    """Tell on one HTML page what a distilled set is worth: verdict, posteriors, rows, how to repeat it.

    bayesdd report clinic:task --distilled d.nc --out report.html
    """
    from bayesdd.data import Distilled
    from bayesdd.posterior import arviz
    from bayesdd.reports import report

    task = _task(arguments)
    distilled = Distilled.from_netcdf(arguments.distilled)
    full = arviz.read(arguments.full) if arguments.full else None
    report(task, distilled, arguments.out, full=full, draws=arguments.draws, seed=arguments.seed)
    _tell(f"wrote {arguments.out}")
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "new": new,
    "distill": distill,
    "certify": certify,
    "sample": sample,
    "report": report,
}


def _check_paths(arguments: argparse.Namespace) -> None:
    """Refuses, before the long computation, paths that would fail after it."""
    if arguments.command == "new":
        return
    check_name(arguments.task)
    if arguments.command == "distill" and arguments.size is None and arguments.tolerance is None:
        raise Refusal("distill needs --size or --tolerance; see bayesdd distill --help")
    for option in ("data", "init", "distilled", "full"):
        path = getattr(arguments, option, None)
        if path and not (option == "data" and _is_rows(path)) and not Path(path).is_file():
            raise FileNotFoundError(f"--{option} {path}: no such file")
    if arguments.out is None:
        return
    if arguments.command == "report":
        if _MANY:
            raise Refusal("report is written by one process: run it without torchrun")
        if Path(arguments.out).suffix != ".html":
            raise Refusal(f"--out {arguments.out}: an HTML page is written; end its name in .html")
        vacant(arguments.out)
        return
    if Path(arguments.out).suffix != ".nc":
        raise Refusal(f"--out {arguments.out}: a netCDF file is written; end its name in .nc")
    target = writable(arguments.out) if _FIRST else Path(os.path.realpath(arguments.out))
    # certify may write its certificate into the very set that it read.
    source = arguments.distilled if arguments.command == "sample" else arguments.data
    for path in (arguments.data, source):
        if path and target == Path(os.path.realpath(path)):
            raise Refusal(f"--out {arguments.out} would replace its own input {path}; name another file")


def _is_rows(path: str) -> bool:
    """Whether rows can be read from what is no file: a query, a folder, or files of one pattern."""
    return bool(QUERY.match(path)) or os.path.isdir(path) or bool(glob.glob(path, recursive=True))


def _task(arguments: argparse.Namespace) -> "Task":
    """The task, the same on all ranks."""
    if not _MANY:
        return made(arguments)
    from bayesdd.density.ranks import current
    from bayesdd.task.provenance import parts_of

    task = current().agreed(lambda: made(arguments), MISTAKES)
    current().agreed(lambda: current().same(parts_of([task])), MISTAKES)
    return task


def _verdict(
    arguments: argparse.Namespace,
    distilled: "Distilled",
    certificate: "Certificate | PredictiveCertificate | None",
    task: "Task",
) -> int:
    """Says what was written and the verdict, in words or as one JSON object; returns the exit code."""
    ok = certificate is None or certificate.ok
    if arguments.json:
        numbers = {} if certificate is None else certificate.to_dict()
        numbers.pop("corrected", None)  # a table of all parameters; it is in the file
        said = {"command": arguments.command, "out": arguments.out, "rows": task.size, "size": len(distilled), "ok": ok}
        words = {} if certificate is None else {"verdict": certificate.verdict, "reasons": certificate.reasons}
        _tell(json.dumps({**said, **words, "certificate": numbers or None}, allow_nan=False))
        return 0 if ok else 1
    if arguments.out:
        _tell(f"wrote {arguments.out}: {len(distilled):,} weighted rows for {task.size:,}")
    if certificate is not None:
        _tell(certificate)
    return 0 if ok else 1


def _resume(out: str | None) -> Path:
    """Where `distill` and `sample` keep their passes over the rows until they have written their result."""
    return Path(f"{out}.resume")


def _write(write: Callable[[str], None], out: str) -> None:
    """Write, by the first rank; where that fails, keep the result in the system's temporary folder and say so."""
    if not _FIRST:
        return
    try:
        write(out)
    except OSError as error:
        kept = str(Path(tempfile.mkdtemp(prefix="bayesdd-")) / Path(out).name)
        write(kept)
        raise OSError(f"{one_line(error)}; the result was saved as {kept}") from error


def _warned(message: Warning | str, *_: object, **__: object) -> None:
    if _FIRST:  # the other ranks have the same warnings
        _say(f"warning: {' '.join(str(message).split())}")


def _tell(text: object) -> None:
    if _FIRST:
        print(text)


def _say(line: str) -> None:
    who = f"rank {os.environ['RANK']}: " if _MANY else ""
    print(f"bayesdd: {who}{line}", file=sys.stderr, flush=True)
