"""How many threads torch may take: one, but for large matrices, or where the environment names a number.

Threads that wait for each other spin. On a machine that does something else too, or in a container with fewer cores
than it shows, each operation on a few thousand numbers then lasts as long as another program holds a core: distilling
5,000 rows took 121 s with two threads and 8 s with one (two cores, load 3), and with nothing else running two threads
saved at most a fifth, for twice the processor time. More cores are for processes (``docs/how-to/big.md``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

NAMED = "OMP_NUM_THREADS"
LARGE = 1000  # order of matrices whose factorisation is worth several threads

_callers: list[int] = []  # the outermost caller's number, while one thread is taken


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside, unless the environment's OMP_NUM_THREADS asks for a number; then the caller's number again."""
    if os.environ.get(NAMED):
        yield
        return
    _callers.append(torch.get_num_threads())
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(_callers.pop())


@contextmanager
def threads_for(order: int) -> Iterator[None]:
    """Inside ``one_thread``: the caller's own number again, where matrices of this order are factorised."""
    here = torch.get_num_threads()
    torch.set_num_threads(_callers[0] if _callers and order >= LARGE else here)
    try:
        yield
    finally:
        torch.set_num_threads(here)
