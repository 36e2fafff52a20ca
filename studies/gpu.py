"""Ten million rows on one GPU: how long does distilling take, and how near are sweeps to what the card can do?

Question: logistic regression, N = 1e7, d = 50, M = 100: how many seconds does ``distill`` take? How many does a sweep
of 2,000 draws take, in float64 as the model is written and in float32 as one compiled graph
(``bayesdd.density.fused``), beside the measured rates of a matrix product and of a copy? And what are the KLs by exact
certificates of both?
Claim: distilling takes at most 30 s; the sweep runs at 30% or more of the float32 matrix rate, which bounds it (2 S N d
operations; rows are read once); float32 sweeps leave the KL where it is, to 0.001 nats.
How it could fail: float32 sums that lose the digits a log-ratio consists of (every draw's sum is compared with
float64's); compilation that costs more than it saves (shown beside); a certificate that float32 noise flatters.
Cost: two minutes on an H100. Without a GPU there is nothing to measure but the smoke run.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from bayesdd import Refusal
from studies.shared import commands, stamps, tables
from studies.shared.cells import RESULTS

ROWS, COVARIATES, SIZE, DRAWS = 10_000_000, 50, 100, 2000
SECONDS, SHARE, NATS = 30.0, 0.3, 1e-3
SQUARE, COPIED = 8192, 2**30  # sizes of the matrix product and of the copy


def main(
    *,
    smoke: bool = False,
    results: str | Path = RESULTS,
    rows: int = ROWS,
    covariates: int = COVARIATES,
    size: int = SIZE,
    draws: int = DRAWS,
) -> pd.DataFrame:
    """Measures everything in this process, prints the table and writes ``results/gpu.md``.

    Args:
        smoke: 3,000 rows, d = 3, on whatever device there is; nothing is written.
        results: Folder of the table.
        rows: Number of rows.
        covariates: Number of covariates.
        size: Number of synthetic rows.
        draws: Draws of a sweep.

    Returns:
        One row a measurement: ``what``, ``measured``, ``claim``, ``met``.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not smoke:
        raise Refusal("studies.gpu measures a GPU, and torch finds none here: run it with --smoke, or elsewhere.")
    if smoke:
        rows, covariates, size, draws = 3000, 3, 6, 50
    found = pd.DataFrame(_measured(device, rows, covariates, size, draws, smoke=smoke))
    name = torch.cuda.get_device_name() if device.type == "cuda" else "no GPU"
    shown = found.assign(met=found.met.where(found.claim.ne("")).astype(object).fillna(""))
    where = f"{name}; {stamps.machine(torch.get_num_threads())}"
    tables.report(
        None if smoke else Path(results) / "gpu.md",
        f"Logistic regression, N = {rows:,}, d = {covariates}, M = {size}; sweeps of {draws:,} draws.",
        shown,
        notes=[stamps.last_line(where, [stamps.source_hash("studies.gpu")])],
    )
    return found


def _measured(
    device: torch.device, rows: int, covariates: int, size: int, draws: int, *, smoke: bool
) -> list[dict[str, Any]]:
    import bayesdd
    from bayesdd.density import fused
    from bayesdd.density.density import Density
    from models import logistic_regression

    found: list[dict[str, Any]] = []

    def say(what: str, measured: str, claim: str = "", *, met: bool = True) -> None:
        found.append({"what": what, "measured": measured, "claim": claim, "met": met})
        print(f"{what}: {measured}", flush=True)

    matrix, copied = _ceilings(device, 256 if smoke else SQUARE, 2**20 if smoke else COPIED)
    say("float32 matrix product", f"{matrix / 1e12:.3g} TFLOP/s")
    say("copy, bytes read and written", f"{copied / 1e12:.3g} TB/s")
    x, y, w = _rows(device, rows, covariates)
    task, seconds = _timed(lambda: bayesdd.Task(logistic_regression.model, {"x": x, "y": y}), device)
    say("Task: checks of all rows", f"{seconds:.2f} s")
    distilled, seconds = _timed(lambda: _quietly(task, size, device), device)
    certificate = distilled.certificate
    assert certificate is not None  # distill attaches one
    say("distill", f"{seconds:.2f} s", f"at most {SECONDS:g} s", met=seconds <= SECONDS)
    say("passes over the rows", f"{certificate.sweeps:,.0f} draws, {certificate.gradients:,.0f} gradients")
    say("its KLs", f"{certificate.kl_reverse:.2e}, {certificate.kl_forward:.2e} nats", met=certificate.ok or smoke)

    density = Density([(task, task.rows, None)], device)
    noise = torch.randn(draws, task.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = (w + noise.to(device) * 2 / rows**0.5).contiguous()
    flops = 2.0 * draws * rows * covariates
    by, before = {}, fused.LEAST_CELLS
    for kind, least in (("float64", sys.maxsize), ("float32, compiled", sys.maxsize if smoke else 0)):
        fused.LEAST_CELLS = least
        value, first = _timed(lambda: density.sweep(points), device)
        by[kind], seconds = value, min(_timed(lambda: density.sweep(points), device)[1] for _ in range(3))
        share = flops / seconds / matrix
        claim = "" if kind == "float64" else f"at least {SHARE:.0%}"
        met = smoke or kind == "float64" or share >= SHARE
        say(f"sweep, {kind}", f"{seconds:.3f} s (first {first:.2f} s), {share:.1%} of the matrix rate", claim, met=met)
        fresh, seconds = _timed(
            lambda: bayesdd.certify(task, distilled, seed=3, exact=True, device=str(device)), device
        )
        by[f"KL {kind}"] = fresh.kl_reverse
        say(f"exact certificate, {kind}", f"{fresh.kl_reverse:.3e} +- {fresh.kl_reverse_se:.0e} nats, {seconds:.2f} s")
    fused.LEAST_CELLS = before
    apart = float((by["float32, compiled"] - by["float64"]).abs().max())
    shift = abs(by["KL float32, compiled"] - by["KL float64"])
    # Sums that are equal to the last digit are float64's: its own check refused float32, and nothing was compared.
    taken = apart > 0
    said = "" if taken else ": float32 was refused, both are float64"
    met = smoke or (taken and apart <= fused.ERROR)
    say("largest difference of a sweep's sums", f"{apart:.1e} nats{said}", f"at most {fused.ERROR:g}", met=met)
    met = smoke or (taken and shift <= NATS)
    say("the KL by float32 less that by float64", f"{shift:.1e} nats{said}", f"at most {NATS:g}", met=met)
    if device.type == "cuda":
        say("most memory of the card", f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    return found


def _quietly(task: Any, size: int, device: torch.device) -> Any:
    import bayesdd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bayesdd.CertificateWarning)  # the verdict is in the table
        return bayesdd.distill(task, size, seed=0, progress=False, device=str(device))


def _rows(device: torch.device, count: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Covariates (neighbours correlated at 0.5, first column 1), outcomes and weights, the rows in main memory."""
    generator = torch.Generator(device).manual_seed(0)
    steps = (torch.arange(dim)[:, None] - torch.arange(dim)).abs().double()
    factor = torch.linalg.cholesky(0.5**steps).to(device)
    x = torch.randn(count, dim, generator=generator, dtype=torch.float64, device=device) @ factor.T
    x[:, 0] = 1
    w = torch.randn(dim, generator=generator, dtype=torch.float64, device=device) / 2
    y = (torch.rand(count, generator=generator, dtype=torch.float64, device=device) < torch.sigmoid(x @ w)).double()
    return x.cpu(), y.cpu(), w


def _ceilings(device: torch.device, square: int, copied: int) -> tuple[float, float]:
    """Operations a second of a float32 matrix product, and bytes a second that a copy reads and writes."""
    a, b = (torch.randn(square, square, device=device) for _ in range(2))
    product = min(_timed(lambda: a @ b, device)[1] for _ in range(5))
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = min(_timed(lambda: target.copy_(source), device)[1] for _ in range(5))
    return 2 * square**3 / product, 2 * copied / copy


def _timed(make: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """What it makes, and wall seconds until the device has it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    made = make()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return made, time.perf_counter() - begin


if __name__ == "__main__":
    commands.run(main)
