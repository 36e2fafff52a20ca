"""A checkpoint: the sums of all passes over the real rows, from which an interrupted run can be resumed.

Everything else in a run is a function of the seed and of these sums. The same command therefore repeats the small
computations, takes the passes over the rows from the checkpoint, and comes to the same result, certificate included.
The file begins with a line of its own and each pass has a hash: what was damaged is said and computed anew.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from bayesdd.data.files import one_line, replacing
from bayesdd.density.ranks import current
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.provenance import identity
from bayesdd.task.task import Task

MARK = b"bayesdd checkpoint 2\n"
NONE = b"bayesdd: no file"
LEAST_CELLS = 2**20  # draws x rows below which a pass takes no longer than keeping its sums
MOST_BYTES = 2**28  # of sums, so that writing them does not take longer than the passes


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

    def sums(self, what: str, draws: Tensor, cells: int, make: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
        """The sums of a pass over ``cells`` draws x rows: known ones, else what ``make`` returns, kept from then on.

        Where the file cannot be written the run warns once and goes on without.
        """
        values = draws.detach().cpu().contiguous().numpy().tobytes()
        key = hashlib.sha256(f"{what} {tuple(draws.shape)} ".encode() + values).hexdigest()
        if key in self._records:
            return self._records[key]
        made = make()
        held = sum(part.numel() for record in self._records.values() for part in record)
        if cells >= LEAST_CELLS and 8 * held <= MOST_BYTES:
            self._records[key] = [part.detach().cpu().clone() for part in made]
            if self._writable:
                self._write()
        return made

    def _write(self) -> None:
        hashes = {key: _hash(key, record) for key, record in self._records.items()}
        buffer = io.BytesIO()
        torch.save({"identity": self.identity, "records": self._records, "hashes": hashes}, buffer)
        try:
            with replacing(self.path) as part:
                part.write_bytes(MARK + buffer.getvalue())
        except OSError as error:
            self._writable = False
            warnings.warn(f"no checkpoint is kept from here on: {one_line(error)}", UserWarning, stacklevel=4)

    def _held(self) -> bytes:
        """The file as it is; what stands for no file at all where there is none."""
        if not self.path.exists():
            return NONE
        return self.path.read_bytes() if self.path.is_file() else b""

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
            found = torch.load(io.BytesIO(held[len(MARK) :]), weights_only=True)
            if found["identity"] != self.identity:
                reason = "it belongs to other data, another model or another version"
            else:
                hashes = found["hashes"]
                records = {k: record for k, record in found["records"].items() if hashes.get(k) == _hash(k, record)}
                lost = max(len(hashes), len(found["records"])) - len(records)
                reason = f"{lost} of its passes are damaged and are computed anew" if lost else ""
        except Exception as error:  # damaged bytes make torch.load raise errors of any type
            reason = f"it is damaged ({one_line(error)})"
        if reason:
            said = "is resumed in part" if records else "cannot be resumed"
            warnings.warn(f"{self.path} {said}: {reason}", UserWarning, stacklevel=5)
        return records


def _hash(key: str, record: Sequence[Tensor]) -> str:
    digest = hashlib.sha256(key.encode())
    for part in record:
        digest.update(f"{tuple(part.shape)} {part.dtype}".encode() + part.contiguous().numpy().tobytes())
    return digest.hexdigest()
