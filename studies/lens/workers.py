"""Worker processes of ``lens``: each imports torch once and measures the cells named on its standard input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event

from studies.lens.cell import Cell, keep, measure
from studies.shared import cells


def run(wanted: Sequence[Cell], arguments: Sequence[str], *, jobs: int, threads: int) -> dict[Cell, str]:
    """Measures cells, in their order, in several processes.

    Args:
        wanted: What to measure.
        arguments: Arguments of a Python process that calls :func:`work`.
        jobs: Processes at a time.
        threads: Threads of each.

    Returns:
        Cell -> last line of the error, for those that failed.
    """
    waiting: SimpleQueue[Cell] = SimpleQueue()
    for cell in wanted:
        waiting.put(cell)
    stop, failed, begin = Event(), {}, time.perf_counter()
    environment = os.environ | dict.fromkeys(cells.THREADS, str(threads))

    def serve() -> None:
        process = None
        while not stop.is_set():
            try:
                cell = waiting.get_nowait()
            except Empty:
                break
            if process is None:
                process = subprocess.Popen(
                    [sys.executable, *arguments],
                    cwd=cells.ROOT,
                    env=environment,
                    text=True,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            line = _asked(process, cell)
            if not line:
                process.communicate()
                process, line = None, json.dumps({"error": "the worker process died"})
            said = json.loads(line)
            if "error" in said:
                failed[cell] = said["error"]
            left = f"{waiting.qsize()} left after {(time.perf_counter() - begin) / 60:.1f} min"
            print(f"{cell.name}: {said.get('error') or said['line']} ({left})", flush=True)
        if process is not None:
            process.communicate()  # closes its input, on which it ends

    with ThreadPoolExecutor(jobs) as pool:
        serving = [pool.submit(serve) for _ in range(jobs)]
        try:
            for one in serving:
                one.result()
        finally:
            stop.set()
    return failed


def _asked(process: subprocess.Popen[str], cell: Cell) -> str:
    """The worker's answer, empty if it died."""
    assert process.stdin is not None  # both are pipes
    assert process.stdout is not None
    try:
        process.stdin.write(f"{cell.name}\n")
        process.stdin.flush()
    except BrokenPipeError:
        return ""
    return process.stdout.readline()


def work(folder: str | Path, threads: str | int, data: str | None = None) -> None:
    """Reads names of cells from standard input until it ends; writes each cell's file and one line of JSON for it."""
    cells.set_threads()
    answers, sys.stdout = sys.stdout, sys.stderr  # what a method prints is no answer
    for line in sys.stdin:
        cell = Cell.parse(line.strip())
        begin = time.perf_counter()
        try:
            measured = measure(cell, data=data)
            keep(cell, Path(folder), int(threads), measured)
            said = {"line": measured.get("refused") or f"{time.perf_counter() - begin:.1f} s"}
        except Exception as error:  # whatever went wrong in this cell, the others go on; it is tried again next time
            said = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        print(json.dumps(said), file=answers, flush=True)
