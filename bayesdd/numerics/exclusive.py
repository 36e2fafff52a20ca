"""One at a time: Pyro and torch keep state that a whole process shares, such as the default dtype and Pyro's handlers.

Whatever changes it holds one lock, which a thread may take again; other threads wait.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from bayesdd.numerics.threads import one_thread

LOCK = threading.RLock()

P = ParamSpec("P")
R = TypeVar("R")


def exclusive(verb: Callable[P, R]) -> Callable[P, R]:
    """A function that one thread runs at a time, with gradients, whatever the caller has switched off.

    torch takes one thread too (:mod:`bayesdd.numerics.threads`).

    Args:
        verb: A public function; it may call others of its kind.
    """

    @functools.wraps(verb)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with LOCK, one_thread(), torch.inference_mode(False), torch.enable_grad():
            return verb(*args, **kwargs)

    return alone
