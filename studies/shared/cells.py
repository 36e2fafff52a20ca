"""Cells of a study: one small JSON file each, measured in a process of its own, kept between runs."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from studies.shared.stamps import ROOT as ROOT
from studies.shared.stamps import machine, source_hash

RESULTS = ROOT / "studies" / "results"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run(
    commands: Mapping[str, Sequence[str]], folder: Path, module: str, *, threads: int, jobs: int
) -> dict[str, dict[str, Any]]:
    """Measures every cell that is not on disk yet.

    Args:
        commands: Cell -> arguments of a Python process that prints the cell's JSON as its last line.
        folder: Where the cells lie, ``CELL.json``; one measured by other source code or threads is measured again.
        module: What measures them, such as ``studies.lens.cell``, for the hash of its source.
        threads: Threads of each process.
        jobs: Processes at a time. More than one shares memory bandwidth: the seconds are then too long.

    Returns:
        Cell -> what it measured; a cell that failed holds only ``error``, its last line, and is tried again next time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamp = {"source": source_hash(module), "threads": threads}
    environment = os.environ | dict.fromkeys(THREADS, str(threads))

    def one(cell: str) -> tuple[str, dict[str, Any]]:
        path = folder / f"{cell}.json"
        kept = read(path)
        if kept is not None and kept.get("stamp") == stamp:
            return cell, kept
        done = subprocess.run(
            [sys.executable, *commands[cell]], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["died in silence"]
        if done.returncode:
            print(f"{cell}: FAILED: {lines[-1]}", flush=True)
            return cell, {"error": lines[-1]}
        measured = json.loads(lines[-1]) | {"stamp": stamp, "machine": machine(threads)}
        write(path, json.dumps(measured, indent=1))
        print(f"{cell}: {measured['seconds']:.1f} s", flush=True)
        return cell, measured

    with ThreadPoolExecutor(jobs) as pool:
        return dict(pool.map(one, commands))


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_text(text)
    os.replace(path.with_suffix(".part"), path)


def read(path: Path) -> dict[str, Any] | None:
    """A cell on disk; None where there is none, or half of one."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def peak_memory() -> float:
    """Most memory that this process ever held, GiB, imports included."""
    try:  # ru_maxrss of a child starts at its parent's on Linux; VmHWM is this program's own
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**20
    except (OSError, IndexError):
        unit = 2**30 if sys.platform == "darwin" else 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def set_threads() -> None:
    """Gives torch the threads that :func:`run` gave this process, one where it was started otherwise."""
    import torch

    torch.set_num_threads(int(os.environ.get(THREADS[0], "1")))
