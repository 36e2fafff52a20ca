"""A bar's description while a long pass over the rows is under way: how far, how many rows a second."""

from __future__ import annotations

import time
from typing import Any

EVERY = 0.2  # seconds between two refreshes
SHORT = 1.0  # seconds that a pass may take before it is worth a word


class Pace:
    """Told after every block how many rows of how many are done; says so on a tqdm bar.

    Args:
        bar: The bar.
        name: Its description.
    """

    def __init__(self, bar: Any, name: str) -> None:
        self.bar, self.name = bar, name
        self._done = self._first = 0
        self._start = self._said = time.monotonic()
        self._shown = False

    def __call__(self, done: int, every: int) -> None:
        """``done`` of ``every`` rows of this pass; fewer than before means a new pass."""
        now = time.monotonic()
        if done <= self._done:
            self._start, self._said, self._first = now, now, done
        self._done = done
        took = now - self._start
        if done >= every:
            if self._shown:
                self.bar.set_description_str(self.name)
            self._shown = False
        elif took > SHORT and now - self._said > EVERY:
            self._said, self._shown = now, True
            rate = (done - self._first) / max(took, 1e-9)
            self.bar.set_description_str(f"{self.name} ({done / every:.0%} of {every:,} rows, {rate:,.0f} a second)")
