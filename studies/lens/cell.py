"""One cell of ``lens``: a method on a task, what it cost and how far from the full posterior it ended."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import bayesdd
from studies.lens import cases, truth
from studies.lens.methods import by_name
from studies.shared import cells, stamps

# Nats, of the larger KL, beyond which no certificate is asked: 2 to 8 s each, and it cannot be ok there.
FAR = 1.0


@dataclass(frozen=True)
class Cell:
    """A task, its seed, the number M of rows asked for, a method."""

    task: str
    seed: int
    size: int
    method: str

    @property
    def name(self) -> str:
        """As in its file's name; :meth:`parse` is the inverse."""
        return f"{self.task}-{self.seed}-{self.size}-{self.method}"

    @classmethod
    def parse(cls, name: str) -> Cell:
        """From a name."""
        task, seed, size, method = name.split("-")
        return cls(task, int(seed), int(size), method)


@dataclass
class Count:
    """Log-likelihoods of rows computed, in units of N rows.

    Attributes:
        values: Of the data, without a gradient.
        gradients: Of the data, with one.
        synthetic: Of the distilled rows, with and without.
    """

    values: float = 0.0
    gradients: float = 0.0
    synthetic: float = 0.0


def measure(cell: Cell, *, data: str | None = None, smoke: bool = False) -> dict[str, Any]:
    """Runs a method and judges what it returns.

    Args:
        cell: Which.
        data: Folder of the data that are no part of the project.
        smoke: The tiny version of the task and of the published methods.

    Returns:
        What goes into the cell's file; only ``refused``, the method's line, where it does not take the task. Seconds
        are the process's own: other processes on the machine do not count.
    """
    stage = cases.staged(cell.task, cell.seed, data, smoke)
    task, method = stage.task, by_name()[cell.method]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", bayesdd.CertificateWarning)  # the verdict is in the table
        warnings.simplefilter("ignore", bayesdd.DataNote)  # KLs judge the rows, not where they lie
        begin = time.process_time()
        try:
            with counting(task.size, cell.size) as count:
                distilled = method.run(task, cell.size, cell.seed, stage.purpose, smoke)
        except ValueError as error:
            return {"refused": str(error).splitlines()[0], "seconds": time.process_time() - begin}
        seconds = time.process_time() - begin
        found, certificate, reason = _judged(cell, stage, distilled)
        (mean, sd), (small_mean, small_sd) = found.moments
        worst = int(np.argmax(np.abs(np.log(small_sd / sd))))
        return {
            "rows": task.size,
            "dim": task.dim,
            "kept": len(distilled),
            "stored": stored(task, distilled),
            "kl": found.kl,
            "how": found.how,
            "reason": reason,
            "mean_error": float((np.abs(small_mean - mean) / sd).max()),
            "sd_ratio": float((small_sd / sd)[worst]),
            "held_out": truth.held_out(task, stage.held_out, found),
            "ok": None if certificate is None else certificate.ok,
            "bound": stage.bound.at(cell.size),
            "bound_kept": stage.bound.at(len(distilled)),
            "sweeps": asdict(count),
            "seconds": seconds,
            "seconds_judged": time.process_time() - begin - seconds,
        }


def _judged(
    cell: Cell, stage: cases.Stage, distilled: bayesdd.Distilled
) -> tuple[truth.Comparison, bayesdd.Certificate | None, str]:
    """The true KLs, the certificate if it was asked for, and why the KLs are the certificate's, if they are."""
    certificate, reason = distilled.certificate, ""
    try:
        found: truth.Comparison | None = stage.truth.compare(distilled)
    except (ArithmeticError, np.linalg.LinAlgError) as error:
        found, reason = None, str(error)
    far = found is not None and max(found.kl["reverse"], found.kl["forward"]) > FAR
    if certificate is None and not far:
        certificate = bayesdd.certify(stage.task, distilled, seed=cell.seed + 1, device="cpu")
    assert not isinstance(certificate, bayesdd.PredictiveCertificate)  # no method here matches predictions
    if found is None:
        assert certificate is not None  # asked for just above
        found = truth.by_certificate(stage.task, distilled, certificate, stage.truth, cell.seed)
    return found, certificate, reason


def stored(task: bayesdd.Task, distilled: bayesdd.Distilled) -> int:
    """Numbers that a distilled set holds: rows times the elements that differ between real rows, and the weights.

    A soft column counts its classes, a group's index one; weights that are all equal follow from N and count nothing.
    """
    width = 0
    for name, column in task.data.items():
        varies = (column != column[:1]).reshape(task.size, -1).any(0)
        width += distilled.soft.get(name, int(varies.sum()))
    even = bool((distilled.weight == distilled.weight[0]).all())
    return len(distilled) * width + (0 if even else len(distilled))


@contextmanager
def counting(rows: int, size: int) -> Iterator[Count]:
    """Counts every row's log-likelihood that any task computes inside, in units of ``rows``.

    Calls on more than ``size`` rows are calls on the data. What autograd will differentiate, in the draws or in the
    rows, is counted as a gradient.
    """
    count = Count()

    def watched(original: Callable[..., Any], *, gradient: bool) -> Callable[..., Any]:
        def call(task: bayesdd.Task, columns: dict[str, Tensor], *rest: Tensor) -> Any:
            draws, here = rest[-1], len(next(iter(columns.values())))
            tracked = torch.is_grad_enabled() and any(t.requires_grad for t in (draws, *columns.values()))
            kind = "synthetic" if here <= size else "gradients" if gradient or tracked else "values"
            setattr(count, kind, getattr(count, kind) + len(draws) * here / rows)
            return original(task, columns, *rest)

        return call

    names = {"log_likelihood": False, "likelihood_gradient": True, "joint_gradient": True}
    with ExitStack() as stack:
        for name, gradient in names.items():
            replacement = watched(getattr(bayesdd.Task, name), gradient=gradient)
            stack.enter_context(mock.patch.object(bayesdd.Task, name, replacement))
        yield count


def kept(cell: Cell, folder: Path, threads: int) -> dict[str, Any] | None:
    """What is on disk of a cell, measured by this source code with these threads."""
    found = cells.read(folder / f"{cell.name}.json")
    return found if found is not None and found.get("stamp") == stamp(threads) else None


def keep(cell: Cell, folder: Path, threads: int, measured: dict[str, Any]) -> None:
    """Writes a cell, whole or not at all."""
    path = folder / f"{cell.name}.json"
    part = path.with_suffix(f".part{os.getpid()}")
    part.write_text(json.dumps(_plain(measured) | {"stamp": stamp(threads)}, indent=1))
    os.replace(part, path)


def stamp(threads: int) -> dict[str, Any]:
    """What must be the same for a cell to be kept."""
    return {"source": source(), "threads": threads}


@cache
def source() -> str:
    """Hash of all that a cell's numbers depend on; the table and the figure may change without a new measurement."""
    return stamps.source_hash("studies.lens.cell")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
