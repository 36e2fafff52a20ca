"""Files that bayesdd writes, damaged: flipped bits and cut ends, each read again.

Claim: of 3,000 damages of each kind of file none ends the process, none takes ten seconds, none gives another content,
and every refusal is of a documented type, in one line. Of files of other formats, which carry no hash
of bayesdd's, the damages that give other values without a word are counted: they cannot be seen.
How it could fail: libraries that trust what a header says; a hash that leaves something out.
Cost: about ten milliseconds of processor time a damage.
"""

from __future__ import annotations

import os
import resource
import signal
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from studies.trust.contents import equal
from studies.trust.written import FOREIGN, OURS, Written

TITLE = "Damaged files"
NOTE = (
    "Flips of one bit, a quarter of them cut ends. Said: the content as it was written, or computed anew, with a "
    "warning. Unharmed: the content as it was written. Other: another content; formats of rows carry no hash of "
    "bayesdd's, so that it cannot be seen, and claim only the columns after it."
)
DAMAGES, OF_OTHERS, CHUNK = 3000, 500, 500  # of a kind of file of bayesdd's, of another format, of a process
LONGEST = 10  # seconds: more counts as hanging
MEMORY = 2**32  # bytes that a reader may take beyond what the process holds
CUTS = 4  # every so many damages is a cut
COLUMNS = ("refused", "said", "unharmed", "other", "undocumented", "crashed", "hung")


def parts(smoke: bool) -> dict[str, list[str]]:
    """Cell -> words for :func:`cell`."""
    if smoke:
        return {"distilled": ["distilled", "0", "20"], "csv": ["csv", "0", "10"]}
    return {
        f"{kind.replace(' ', '_')}_{first}": [kind, str(first), str(first + CHUNK)]
        for first in range(0, DAMAGES, CHUNK)
        for kind in (*OURS, *(FOREIGN if first < OF_OTHERS else ()))
    }


def cell(kind: str, first: str, end: str) -> dict[str, Any]:
    """How often each thing happened to a kind of file, and up to ten of what must not happen."""
    counts: Counter[str] = Counter()
    bad: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        made = (OURS | FOREIGN)[kind](Path(folder))
        whole = {path: path.read_bytes() for path in made.files}
        for at, (what, why) in _attempts(partial(_attempt, made, whole), int(first), int(end)):
            counts[what] += 1
            if what in COLUMNS[3:] and len(bad) < 10:
                bad.append(f"{at}: {what}: {why}")
    usage = os.times()
    return {
        "kind": kind,
        "counts": dict(counts),
        "bad": bad,
        "processor seconds": usage.children_user + usage.children_system,
    }


def table(found: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a kind of file."""
    rows = []
    for kind in (*OURS, *FOREIGN):
        total: Counter[str] = Counter()
        for one in found:
            if one["kind"] == kind:
                total.update(one["counts"])
        if total:
            wrong = sum(total[name] for name in (COLUMNS[3:] if kind in OURS else COLUMNS[4:]))
            counts = {name: total[name] for name in COLUMNS}
            rows.append({"file": kind, "damages": sum(total.values()), **counts, "met": wrong == 0})
    return pd.DataFrame(rows)


class _Damage(NamedTuple):
    path: Path
    content: bytes


def _damage(whole: dict[Path, bytes], seed: int) -> _Damage:
    """One file with a flipped bit, half of them among bytes that are not zero, or with its end cut off."""
    rng = np.random.default_rng(seed)
    paths = list(whole)
    sizes = np.array([len(whole[path]) for path in paths], float)
    path = paths[rng.choice(len(paths), p=sizes / sizes.sum())]
    content = bytearray(whole[path])
    if seed % CUTS == 0:
        return _Damage(path, bytes(content[: rng.integers(len(content))]))
    places = np.flatnonzero(np.frombuffer(bytes(content), np.uint8)) if seed % 2 else np.arange(len(content))
    content[rng.choice(places)] ^= 1 << int(rng.integers(8))
    return _Damage(path, bytes(content))


def _attempt(made: Written, whole: dict[Path, bytes], seed: int) -> tuple[str, str]:
    """What reading a damaged copy led to; the file is whole again afterwards."""
    path, content = _damage(whole, seed)
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            value = made.read()
        except made.documented as error:
            return ("undocumented", f"two lines: {error}") if "\n" in str(error) else ("refused", "")
        except BaseException as error:  # any other type is what is looked for
            return "undocumented", f"{type(error).__name__}: {error}"[:300]
        finally:
            path.write_bytes(whole[path])
    if not equal(value, made.content):
        return "other", path.name
    return ("said" if said else "unharmed"), ""


def _attempts(attempt: Callable[[int], tuple[str, str]], at: int, end: int) -> Iterator[tuple[int, tuple[str, str]]]:
    """Outcomes one after the other, from child processes: one that dies or hangs takes only one attempt with it."""
    while at < end:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            _work(attempt, range(at, end), write)
        os.close(write)
        with os.fdopen(read) as lines:
            for line in lines:
                what, why = line.rstrip("\n").split("\t")
                yield at, (what, why)
                at += 1
        status = os.waitpid(child, 0)[1]
        if at < end:
            hung = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
            yield at, ("hung" if hung else "crashed", f"status {status}")
            at += 1


def _work(attempt: Callable[[int], tuple[str, str]], attempts: range, write: int) -> None:
    """What a child does: it never returns."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends even a loop in a library
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)  # libraries write their own complaints
    try:
        for at in attempts:
            signal.alarm(LONGEST)
            what, why = attempt(at)
            signal.alarm(0)
            os.write(write, f"{what}\t{' '.join(why.split())}\n".encode())
    finally:
        os._exit(0 if at == attempts[-1] else 1)
