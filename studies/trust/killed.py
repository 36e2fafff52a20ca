"""Runs that are killed (SIGKILL) at random moments and started again with the same checkpoint.

Claim: the file that the second run writes is, byte for byte, that of a run that nobody disturbed, without a warning,
and until then an earlier file of that name is as it was, or already the new one.
How it could fail: half a checkpoint, half a result, a lock that a dead process holds, a number that depends on how
often the rows were passed over.
Cost: two seconds of processor time a kill, eleven by the command line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import bayesdd
from bayesdd.data import files
from bayesdd.density import checkpoint
from studies.shared.cells import ROOT
from studies.trust.tasks import classes

TITLE = "Killed runs"
NOTE = (
    "SIGKILL after a random share of an undisturbed run's time, or within a few milliseconds of the beginning of one "
    "of its writes (of the checkpoint, of the result). Same: the file of the second run is that of an undisturbed "
    "one, byte for byte, and nothing was warned of. Earlier file kept: until then the file of that name was whole."
)
ROWS, SIZE = 3000, 3
LEAST_CELLS = (
    2**14
)  # of a pass that is kept, so that a small run writes its checkpoint often; the command line's is 2**20
CHUNK = 10  # kills of a process
EARLIER = b"an earlier file"
WRITING = 0.02  # seconds within which a write is cut: about as long as it takes
CASES = {
    "Python, any moment": ("python", False, 50),
    "Python, within a write": ("python", True, 30),
    "command line, any moment": ("shell", False, 12),
    "command line, within a write": ("shell", True, 8),
}
TASK_FILE = f"from studies.trust.tasks import classes\n\n\ndef task():\n    return classes({ROWS})\n"
SHELL = "import sys; from studies.trust import killed; from bayesdd.cli.main import main; {}; sys.exit(main({!r}))"


def parts(smoke: bool) -> dict[str, list[str]]:
    """Cell -> words for :func:`cell`."""
    if smoke:
        return {"smoke": ["Python, within a write", "0", "1"]}
    return {
        f"{way}_{'write' if within else 'any'}_{first}": [name, str(first), str(min(first + CHUNK, count))]
        for name, (way, within, count) in CASES.items()
        for first in range(0, count, CHUNK)
    }


def cell(case: str, first: str, end: str) -> dict[str, Any]:
    """Kills runs, one after the other, until so many have died."""
    way, within, _ = CASES[case]
    start = _shell if way == "shell" else partial(_python, _warm())
    rng, kills = np.random.default_rng(int(first)), int(end) - int(first)
    died, finished, same, kept, bad = 0, 0, 0, 0, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "small.py").write_text(TASK_FILE)
        begin = time.perf_counter()
        _wait(start(folder, None))
        lasts = time.perf_counter() - begin
        whole = (folder / "d.nc").read_bytes()
        while died < kills:
            _emptied(folder)
            (folder / "d.nc").write_bytes(EARLIER)
            cut = (int(rng.integers(1, 4)), float(rng.uniform(0, WRITING))) if within else None
            run = start(folder, cut)
            if not within:
                time.sleep(float(rng.uniform(0, lasts)))
                os.kill(run, signal.SIGKILL)
            if _wait(run) == 0:
                finished += 1
                continue
            died += 1
            found = (folder / "d.nc").read_bytes()
            kept += found in (EARLIER, whole)
            _wait(start(folder, None))
            good = (folder / "d.nc").read_bytes() == whole and not (folder / "said").read_text()
            same += good
            if not good:
                bad.append(f"kill {died}, {cut}: {(folder / 'said').read_text()[:300]}")
    usage = os.times()
    return {
        "case": case,
        "killed": died,
        "ended before": finished,
        "same": same,
        "kept": kept,
        "bad": bad,
        "processor seconds": usage.children_user + usage.children_system,
    }


def table(found: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a way of running."""
    rows = []
    for case in CASES:
        killed, same, kept, ended = (
            sum(one[name] for one in found if one["case"] == case)
            for name in ("killed", "same", "kept", "ended before")
        )
        if killed:
            row = {"run": case, "killed": killed, "same": same, "earlier file kept": kept, "ended before": ended}
            rows.append(row | {"met": same == kept == killed})
    return pd.DataFrame(rows)


def cut_within(write: int, delay: float) -> None:
    """Kills this process some seconds after the beginning of one of its writes, counted from 1."""
    begun, before = [0], files.writable

    def writable(path: str | os.PathLike[str]) -> Path:
        if sys._getframe(1).f_code.co_name == "replacing":
            begun[0] += 1
            if begun[0] == write:
                threading.Timer(delay, partial(os.kill, os.getpid(), signal.SIGKILL)).start()
        return before(path)

    files.writable = writable


def _emptied(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file() and path.suffix != ".py":
            path.unlink()


def _warm() -> bayesdd.Task:
    """A task that was distilled once: children of this process do not record its model again."""
    task = classes(ROWS)
    bayesdd.distill(task, SIZE, progress=False)
    return task


def _python(task: bayesdd.Task, folder: Path, cut: tuple[int, float] | None) -> int:
    """A run in a child of this process; what it warns of is in the file ``said``."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        if cut is not None:
            cut_within(*cut)
        checkpoint.LEAST_CELLS = LEAST_CELLS
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            made = bayesdd.distill(task, SIZE, checkpoint=folder / "c", progress=False)
            made.to_netcdf(folder / "d.nc")
        (folder / "said").write_text("\n".join(str(one.message) for one in said))
        status = 0
    finally:
        os._exit(status)


def _shell(folder: Path, cut: tuple[int, float] | None) -> int:
    """``bayesdd distill`` in a process of its own; what it says of itself is in the file ``said``."""
    words = ["distill", "small:task", "--size", str(SIZE), "--out", "d.nc", "--quiet"]
    script = SHELL.format("killed.cut_within({}, {})".format(*cut) if cut else "None", words)
    with (folder / "said").open("w") as said:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        run = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
    return run.pid


def _wait(run: int) -> int:
    return os.waitpid(run, 0)[1]
