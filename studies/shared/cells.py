"""Cells of a study: one small JSON file each, measured in a process of its own, kept between runs."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run(
    commands: Mapping[str, Sequence[str]], folder: Path, study: str, *, threads: int, jobs: int
) -> dict[str, dict[str, Any]]:
    """Measures every cell that is not on disk yet.

    Args:
        commands: Cell -> arguments of a Python process that prints the cell's JSON as its last line.
        folder: Where the cells lie, ``CELL.json``; one measured by other source code or threads is measured again.
        study: Module of the study, for the hash of its source.
        threads: Threads of each process.
        jobs: Processes at a time. More than one shares memory bandwidth: the seconds are then too long.

    Returns:
        Cell -> what it measured; a cell that failed holds only ``error``, its last line, and is tried again next time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamp = {"source": source_hash(study), "threads": threads}
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


def source_hash(study: str) -> str:
    """Of all that a cell's numbers depend on: the library, the models, the studies' parts and the study itself."""
    patterns = ("bayesdd/**/*.py", "models/**/*.py", "studies/_*.py", f"studies/{study}.py")
    digest = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def peak_memory() -> float:
    """Most memory that this process ever held, GiB, imports included."""
    try:  # ru_maxrss of a child starts at its parent's on Linux; VmHWM is this program's own
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**20
    except (OSError, IndexError):
        unit = 2**30 if sys.platform == "darwin" else 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def machines(cells: Iterable[Mapping[str, Any]]) -> str:
    """The machines that measured some cells, and how many each where there are several."""
    counts = Counter(cell["machine"] for cell in cells if "machine" in cell)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{count} cells on {name}" for name, count in counts.most_common())


def machine(threads: int) -> str:
    """One line: processor, cores, threads, versions."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "pyro-ppl", "numpy", "scipy"))
    return f"{cpu}, {os.cpu_count()} cores, {threads} thread(s) a run; Python {platform.python_version()}, {versions}"
