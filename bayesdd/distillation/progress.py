"""Progress of a long pass over the rows: how far it is, and how many rows a second."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY = 0.2  # seconds between two refreshes
SHORT = 1.0  # seconds below which a pass is not reported


class Pace:
    """Called after every block with the number of rows done; describes passes that take long.

    Args:
        say: Shows a description, such as a tqdm bar's ``set_description_str``.
        name: The description when no such pass is under way.
    """

    def __init__(self, say: Callable[[str], None], name: str) -> None:
        self.say, self.name = say, name
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
                self.say(self.name)
            self._shown = False
        elif took > SHORT and now - self._said > EVERY:
            self._said, self._shown = now, True
            rate = (done - self._first) / max(took, 1e-9)
            self.say(f"{self.name} ({done / every:.0%} of {every:,} rows, {rate:,.0f} a second)")
