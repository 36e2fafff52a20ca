"""One cell of ``scale``: rows on disk or shared by ranks, distilled and swept in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import torch

from studies.shared import cells

SIZE = 30  # synthetic rows
PARTICLES = 1000  # draws of an exact sweep
PIECE = 100_000  # rows generated at a time
SEED = 0


def cell(kind: str, rows: str, covariates: str, ranks: str) -> dict[str, Any]:
    """What ``--cell`` measures: ``disk`` or ``ranks``, their numbers."""
    cells.set_threads()
    if kind == "disk":
        return on_disk(int(rows), int(covariates))
    return shared(int(rows), int(covariates), int(ranks))


def on_disk(count: int, dim: int, *, size: int = SIZE) -> dict[str, Any]:
    """Distils rows of a netCDF file that stays on disk.

    Args:
        count: Number of rows.
        dim: Number of covariates.
        size: Number of synthetic rows.

    Returns:
        What goes into the cell's file.
    """
    import bayesdd
    from models import logistic_regression

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.nc"
        written(path, count, dim)
        begin = time.perf_counter()
        task = bayesdd.Task(logistic_regression.model, bayesdd.on_disk(path))
        checked = time.perf_counter()
        certificate = _distilled(task, size).certificate
        end = time.perf_counter()
        assert certificate is not None  # distill attaches one
        return {
            "seconds": end - begin,
            "distill": end - checked,
            "bytes": path.stat().st_size,
            "memory": cells.peak_memory(),
            "sweeps": certificate.sweeps,
            "gradients": certificate.gradients,
            "kl": certificate.kl_reverse,
            "ok": certificate.ok,
        }


def shared(count: int, dim: int, ranks: int) -> dict[str, Any]:
    """Distils and sweeps rows of a file that several ranks share, one thread each.

    Args:
        count: Number of rows.
        dim: Number of covariates.
        ranks: Number of processes.

    Returns:
        What the first rank measured.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder) / "rows.nc", count, dim)
        line = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone"]
        line += ["-m", "studies.scale", "--rank", folder]
        subprocess.run(line, cwd=cells.ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
        found: dict[str, Any] = json.loads((Path(folder) / "measured.json").read_text())
    return found | {"seconds": time.perf_counter() - begin}


def written(path: Path, count: int, dim: int) -> None:
    """A file of covariates (neighbours correlated at 0.5, first column 1) and outcomes, a piece at a time."""
    rng = np.random.default_rng(SEED)
    steps = np.abs(np.subtract.outer(np.arange(dim), np.arange(dim)))
    factor, w = np.linalg.cholesky(0.5**steps).T, rng.normal(size=dim) / 2
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("rows", count)
        file.createDimension("covariates", dim)
        x = file.createVariable("x", "f8", ("rows", "covariates"))
        y = file.createVariable("y", "f8", ("rows",))
        for start in range(0, count, PIECE):
            piece = rng.normal(size=(min(PIECE, count - start), dim)) @ factor
            piece[:, 0] = 1
            x[start : start + len(piece)] = piece
            y[start : start + len(piece)] = rng.uniform(size=len(piece)) < 1 / (1 + np.exp(-piece @ w))


def _distilled(task: Any, size: int) -> Any:
    import bayesdd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bayesdd.CertificateWarning)  # the verdict is in the table
        return bayesdd.distill(task, size, seed=SEED, progress=False, device="cpu")


def one_rank(folder: str) -> None:
    """What each rank runs; the first one writes what it measured."""
    import bayesdd
    from bayesdd.density.density import Density
    from bayesdd.density.ranks import joined
    from models import logistic_regression

    torch.set_num_threads(1)
    task = bayesdd.Task(logistic_regression.model, Path(folder) / "rows.nc")
    draws = torch.randn(PARTICLES, task.dim, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    with joined("cpu") as ranks:
        density = Density([(task, task.rows, None)], spread=True)
        density.sweep(draws[:64])  # recorded before the clock runs
        begin = time.perf_counter()
        swept = density.sweep(0.01 * draws)
        middle = time.perf_counter()
        found = _distilled(task, SIZE)
        end = time.perf_counter()
        if ranks.rank == 0:
            rows = {name: column.tolist() for name, column in found.data.items()}
            made = {"sweep": middle - begin, "distill": end - middle, "swept": swept.tolist(), "rows": rows}
            (Path(folder) / "measured.json").write_text(json.dumps(made | {"weight": found.weight.tolist()}))
