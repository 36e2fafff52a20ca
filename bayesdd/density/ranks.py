"""Ranks: several processes, on one machine or many, that share the rows of one run.

``torchrun --nproc-per-node=2 -m bayesdd distill ...`` starts them. Each rank owns whole groups of row blocks. A pass
ends in one ``all_reduce``, in which every group's sum comes from the rank that owns it and zeros from the others, so
that the order of summation does not matter. All ranks compute the distilled rows and all decisions from equal seeds and
equal sums; every pass checks that they agree. Processes communicate by gloo on the CPU, by nccl on GPUs, in tensors and
JSON; neither is encrypted or asks who sends, so that ranks belong on a trusted network only.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bayesdd.data.files import one_line
from bayesdd.numerics.devices import resolve
from bayesdd.numerics.refusal import Refusal

T = TypeVar("T")

PATIENCE = 60.0  # seconds that a rank waits for another


@dataclass(frozen=True)
class Ranks:
    """This process's number, and how many processes there are."""

    rank: int = 0
    count: int = 1

    @property
    def many(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def summed(self, slab: Tensor, what: str, draws: Tensor) -> Tensor:
        """Sum of the ranks' slabs, each zero in the rows that another rank owns.

        Raises:
            ConnectionError: A rank died or does not answer.
            Refusal: The ranks sum different things, or at different draws.
        """
        values = draws.detach().cpu().contiguous().numpy().tobytes()
        mine = int.from_bytes(hashlib.sha256(what.encode() + values).digest()[:6], "big")  # exact in a float64
        marks = slab.new_zeros(self.count)
        marks[self.rank] = mine
        flat = torch.cat([slab.flatten(), marks])
        on = flat.cpu() if dist.get_backend() == "gloo" else flat
        with _answered():
            dist.all_reduce(on)
        on = on.to(flat.device)
        if bool((on[-self.count :] != mine).any()):
            raise Refusal(
                f"rank {self.rank} has other numbers than another rank: run all ranks on equal machines, with equal "
                "versions, equal data and equal numbers of threads."
            )
        return on[: -self.count].reshape(slab.shape)

    def each(self, count: int, make: Callable[[int], Tensor], draws: Tensor) -> Tensor:
        """``make(k)`` of shape ``(S,)`` for every k below ``count``, each by one rank: ``(count, S)`` on all."""
        if not self.many:
            return torch.stack([make(k) for k in range(count)])
        slab = draws.new_zeros(count, len(draws))
        for k in range(self.rank, count, self.count):
            slab[k] = make(k)
        return self.summed(slab, f"each of {count}", draws)

    def gathered(self, mine: T) -> list[T]:
        """Every rank's object, in their order; strings, numbers, lists and mappings, which travel as JSON."""
        if not self.many:
            return [mine]
        own = json.dumps(mine).encode()
        sizes = [torch.zeros(1, dtype=torch.int64, device=_place()) for _ in range(self.count)]
        with _answered():
            dist.all_gather(sizes, torch.tensor([len(own)], device=_place()))
            most = max(int(size) for size in sizes)
            padded = [torch.zeros(most, dtype=torch.uint8, device=_place()) for _ in sizes]
            dist.all_gather(padded, _bytes(own.ljust(most)))
        return [json.loads(bytes(text.cpu().numpy())) for text in padded]

    def agreed(self, make: Callable[[], T], mistakes: tuple[type[Exception], ...]) -> T:
        """What ``make`` gives here; a mistake on any rank ends all, and the first rank that made it reports it.

        Raises:
            SystemExit: Code 2, silently, where another rank reports the mistake.
        """
        failure: Exception | None = None
        try:
            made = make()
        except mistakes as error:
            failure = error
        lines = self.gathered("" if failure is None else one_line(failure))
        if failure is not None and lines.index(one_line(failure)) == self.rank:
            raise failure
        if any(lines):
            raise SystemExit(2)
        return made

    def same(self, parts: dict[str, Any]) -> None:
        """Refuses ranks that differ in their data, models or versions, which are given by name.

        Raises:
            Refusal: They differ; names in what.
        """
        every = self.gathered(parts)
        for rank, other in enumerate(every):
            if differ := [name for name, value in every[0].items() if other[name] != value]:
                raise Refusal(f"rank {rank} has other {' and '.join(differ)} than rank 0: give all ranks the same")

    def from_first(self, make: Callable[[], bytes]) -> bytes:
        """What the first rank makes, sent to all."""
        if not self.many:
            return make()
        made = make() if self.rank == 0 else b""
        size = torch.tensor([len(made)], device=_place())
        with _answered():
            dist.broadcast(size, 0)
            sent = _bytes(made) if self.rank == 0 else torch.zeros(int(size), dtype=torch.uint8, device=_place())
            dist.broadcast(sent, 0)
        return bytes(sent.cpu().numpy())


def _place() -> torch.device:
    """Where tensors that ranks exchange must be."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def _bytes(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).to(_place()) if text else torch.zeros(0).byte()


def current() -> Ranks:
    """This process's rank among those it has joined; the only one if it has joined none."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size())


@contextmanager
def joined(device: str | torch.device, patience: float = PATIENCE) -> Iterator[Ranks]:
    """Joins the other ranks if there are any (``WORLD_SIZE``, as torchrun sets it), and leaves them at the end.

    Raises:
        ConnectionError: The others cannot be reached.
        Refusal: There is no such device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield Ranks()
        return
    where = resolve(device)
    address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        dist.init_process_group(
            "nccl" if where.type == "cuda" else "gloo", timeout=datetime.timedelta(seconds=patience)
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ConnectionError(
            f"the other ranks cannot be reached at {address} within {patience:g} s ({_reason(error)}): check that "
            "torchrun runs on every machine with the same --rdzv-endpoint, and that the port is open"
        ) from error
    if where.type == "cuda":
        torch.cuda.set_device(where)
    yield current()
    # Not after a failure: nccl would wait for the rank that has died, and the process ends anyway.
    dist.destroy_process_group()


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(
            f"another rank has died or does not answer ({_reason(error)}); the sums so far are kept, and the same "
            "command resumes from them"
        ) from error


def _reason(error: Exception) -> str:
    """The first sentence of torch's message; the rest is its stack."""
    return one_line(error).split(". ")[0][:160]
