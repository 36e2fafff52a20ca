"""A checkpoint: the sums of all passes over the real rows, from which an interrupted run can be resumed.

Everything else in a run is a function of the seed and of these sums. The same command therefore repeats the small
computations, takes the passes over the rows from the checkpoint, and comes to the same result, certificate included.
The file is a line of its own, a line of JSON, and the sums as they stand in memory (float64, little-endian); nothing in
it is ever run. Each pass has a hash: what was damaged is said and computed anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesdd.data.files import MOST_LETTERS, one_line, replacing
from bayesdd.density.ranks import current
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.provenance import identity
from bayesdd.task.task import Task

MARK = b"bayesdd checkpoint 3\n"
NONE = b"bayesdd: no file"
LEAST_CELLS = 2**20  # draws x rows below which a pass takes no longer than keeping its sums
MOST_BYTES = 2**28  # of sums, so that writing them does not take longer than the passes
AT_ONCE, SELDOM = 2**20, 20  # bytes of sums from which they are written only once 20 times the time of a write is over


class Checkpoint:
    """The sums of passes, found again by what was summed and at which draws.

    Args:
        path: The file; written by the first rank alone, and atomically.
        tasks: The target; a checkpoint of other data, models or versions is not used.

    Raises:
        Refusal: There is a file at ``path`` that is no checkpoint; it is left as it is.
    """

    def __init__(self, path: str | os.PathLike[str], tasks: Sequence[Task]) -> None:
        self.path, self.identity, self.ranks = Path(path), identity(tasks), current()
        self._records = self._load(self.ranks.from_first(self._held))
        self._writable = self.ranks.rank == 0
        self._size = sum(8 * part.numel() for record in self._records.values() for part in record)
        self._next = 0.0  # on the clock, when a large file may be written again

    def sums(self, what: str, draws: Tensor, cells: int, make: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
        """The sums of a pass over ``cells`` draws x rows: known ones, else what ``make`` returns, kept from then on.

        Where the file cannot be written the run warns once and goes on without.
        """
        values = draws.detach().cpu().contiguous().numpy().tobytes()
        key = hashlib.sha256(f"{what} {tuple(draws.shape)} ".encode() + values).hexdigest()
        if key in self._records:
            return self._records[key]
        made = make()
        if cells >= LEAST_CELLS and self._size <= MOST_BYTES:
            self._records[key] = [part.detach().cpu().clone() for part in made]
            self._size += sum(8 * part.numel() for part in made)
            if self._writable and (self._size < AT_ONCE or time.monotonic() >= self._next):
                self._write()
        return made

    def _write(self) -> None:
        begin = time.monotonic()
        passes = {
            key: {"shapes": [list(part.shape) for part in record], "sha256": _hash(key, record)}
            for key, record in self._records.items()
        }
        head = json.dumps({"identity": self.identity, "passes": passes}).encode()
        sums = b"".join(_bytes(part) for record in self._records.values() for part in record)
        try:
            with replacing(self.path) as part:
                part.write_bytes(MARK + head + b"\n" + sums)
        except OSError as error:
            self._writable = False
            warnings.warn(f"no checkpoint is kept from here on: {one_line(error)}", UserWarning, stacklevel=4)
        now = time.monotonic()
        self._next = now + SELDOM * (now - begin)

    def _held(self) -> bytes:
        """The file as it is; what stands for no file at all where there is none."""
        if not self.path.exists():
            return NONE
        if not self.path.is_file():
            return b""
        with self.path.open("rb") as file:  # what is no checkpoint can have any size
            start = file.read(len(MARK))
            return start + file.read() if start == MARK else start

    def _load(self, held: bytes) -> dict[str, list[Tensor]]:
        if held == NONE:
            return {}
        if not held.startswith(MARK):
            raise Refusal(
                f"checkpoint {self.path}: there is a file that is no checkpoint of this version; it was left as it is: "
                "name another path, or remove it"
            )
        records: dict[str, list[Tensor]] = {}
        try:
            head, _, sums = held[len(MARK) :].partition(b"\n")
            found = json.loads(head)
            if found["identity"] != self.identity:
                reason = "it belongs to other data, another model or another version"
            else:
                records = _read(found["passes"], sums)
                lost = len(found["passes"]) - len(records)
                reason = f"{lost} of its passes are damaged and are computed anew" if lost else ""
        except Exception as error:  # damaged bytes can be JSON of any shape
            reason = f"it is damaged ({one_line(error)[:MOST_LETTERS]})"
        if reason:
            said = "is resumed in part" if records else "cannot be resumed"
            warnings.warn(f"{self.path} {said}: {reason}", UserWarning, stacklevel=5)
        return records


def _read(passes: dict[str, Any], sums: bytes) -> dict[str, list[Tensor]]:
    """The passes that are as they were written.

    Raises:
        ValueError: The sums have another length than their shapes.
    """
    shapes = [tuple(map(int, shape)) for one in passes.values() for shape in one["shapes"]]
    if min((length for shape in shapes for length in shape), default=0) < 0 or 8 * sum(map(math.prod, shapes)) != len(
        sums
    ):
        raise Refusal(f"{len(sums):,} bytes of sums are not those of its shapes")
    found: dict[str, list[Tensor]] = {}
    at = 0
    for key, one in passes.items():
        record = []
        for shape in one["shapes"]:
            values = np.frombuffer(sums, "<f8", math.prod(shape), at).reshape(shape)
            record.append(torch.from_numpy(values.astype(np.float64)))
            at += values.nbytes
        if one["sha256"] == _hash(key, record):
            found[key] = record
    return found


def _bytes(part: Tensor) -> bytes:
    return part.double().contiguous().numpy().astype("<f8").tobytes()


def _hash(key: str, record: Sequence[Tensor]) -> str:
    digest = hashlib.sha256(key.encode())
    for part in record:
        digest.update(f"{tuple(part.shape)}".encode() + _bytes(part))
    return digest.hexdigest()
