"""A checkpoint: the sums of all passes over the real rows, from which an interrupted run can be resumed.

Everything else in a run is a function of the seed and of these sums. The same command therefore repeats the small
computations, takes the passes over the rows from the checkpoint, and comes to the same result, certificate included.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from bayesdd.data.files import one_line, replacing
from bayesdd.density.ranks import current
from bayesdd.task.provenance import identity
from bayesdd.task.task import Task

LEAST_CELLS = 2**20  # draws x rows below which a pass takes no longer than keeping its sums
MOST_BYTES = 2**28  # of sums, so that writing them does not take longer than the passes


class Checkpoint:
    """The sums of passes, found again by what was summed and at which draws.

    Args:
        path: The file; written by the first rank alone, and atomically.
        tasks: The target; a checkpoint of other data, models or versions is not used.
    """

    def __init__(self, path: str | os.PathLike[str], tasks: Sequence[Task]) -> None:
        self.path, self.identity, self.ranks = Path(path), identity(tasks), current()
        self._records: dict[str, list[Tensor]] = self.ranks.from_first(self._load)

    def sums(self, what: str, draws: Tensor, cells: int, make: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
        """The sums of a pass over ``cells`` draws x rows: known ones, else what ``make`` returns, kept from then on.

        Raises:
            OSError: The file cannot be written.
        """
        values = draws.detach().cpu().contiguous().numpy().tobytes()
        key = hashlib.sha256(f"{what} {tuple(draws.shape)} ".encode() + values).hexdigest()
        if key in self._records:
            return self._records[key]
        made = make()
        held = sum(part.numel() for record in self._records.values() for part in record)
        if cells >= LEAST_CELLS and 8 * held <= MOST_BYTES:
            self._records[key] = [part.detach().cpu().clone() for part in made]
            if self.ranks.rank == 0:
                with replacing(self.path) as part:
                    torch.save({"identity": self.identity, "records": self._records}, part)
        return made

    def _load(self) -> dict[str, list[Tensor]]:
        if not self.path.exists():
            return {}
        try:
            held = torch.load(self.path, weights_only=True)
            if held["identity"] == self.identity:
                records: dict[str, list[Tensor]] = held["records"]
                return records
            reason = "it belongs to other data, another model or another version"
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            reason = f"it cannot be read ({one_line(error)})"
        warnings.warn(f"{self.path} cannot be resumed: {reason}", UserWarning, stacklevel=4)
        return {}
