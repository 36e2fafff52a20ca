"""Progress of a long pass over the rows: how far it is, and how many rows a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

EVERY = 0.2  # seconds between two refreshes
LOGGED = 10.0  # seconds between two lines about one pass in a log file
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


class Lines:
    """Progress where nobody watches, such as a log file: whole lines on stderr, with the seconds since the start."""

    def __init__(self) -> None:
        self._start, self._last = time.monotonic(), -LOGGED

    def __enter__(self) -> Lines:
        """Nothing to prepare."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to clear away."""

    def set_postfix_str(self, said: str) -> None:
        """A line of what is done now."""
        print(f"bayesdd: {time.monotonic() - self._start:.1f} s: {said}", file=sys.stderr, flush=True)

    def set_description_str(self, said: str) -> None:
        """A line of how far a long pass is, every ten seconds."""
        now = time.monotonic()
        if "(" in said and now - self._last >= LOGGED:
            self._last = now
            self.set_postfix_str(said.partition("(")[2].rstrip(")"))


def shown(silent: bool) -> Any:
    """A bar in a terminal or notebook, lines in a file or pipe; nothing at all if ``silent``."""
    if silent or sys.stderr.isatty() or "ipykernel" in sys.modules:
        return tqdm(disable=silent, desc="bayesdd", bar_format="{desc}: {elapsed}{postfix}")
    return Lines()
