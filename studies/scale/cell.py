"""One cell of ``scale``: rows in files, tables, on a cluster or shared by ranks, each in a process of its own."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import psutil
import torch

from studies.shared import cells

SIZE = 30  # synthetic rows
PARTICLES = 1000  # draws of an exact sweep
PIECE = 100_000  # rows generated at a time
SEED = 0


def cell(kind: str, rows: str, covariates: str, ranks: str) -> dict[str, Any]:
    """What ``--cell`` measures: a kind of ``KINDS`` or ``ranks``, their numbers."""
    cells.set_threads()
    if kind == "ranks":
        return shared(int(rows), int(covariates), int(ranks))
    return on_disk(int(rows), int(covariates), kind=kind)


def on_disk(count: int, dim: int, *, size: int = SIZE, kind: str = "netcdf") -> dict[str, Any]:
    """Distils rows that stay where they are.

    Args:
        count: Number of rows.
        dim: Number of covariates.
        size: Number of synthetic rows.
        kind: One of ``KINDS``.

    Returns:
        What goes into the cell's file.
    """
    import bayesdd
    from bayesdd.density.density import Density
    from models import logistic_regression

    ending = ".nc" if kind == "netcdf" else ".parquet"
    with tempfile.TemporaryDirectory() as folder, KINDS[kind](path := Path(folder) / f"rows{ending}") as opened:
        (written if kind == "netcdf" else tabled)(path, count, dim)
        before, begin = _processor(), time.perf_counter()
        task = bayesdd.Task(logistic_regression.model, opened(), columns=["x", "y"])
        checked = time.perf_counter()
        certificate = _distilled(task, size).certificate
        end, after = time.perf_counter(), _processor()
        assert certificate is not None  # distill attaches one
        draws = torch.randn(8, dim, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
        found = {
            "seconds": end - begin,
            "processor": after - before,
            "distill": end - checked,
            "bytes": path.stat().st_size,
            "memory": cells.peak_memory(),
            "workers": _workers_memory(),
            "sweeps": certificate.sweeps,
            "gradients": certificate.gradients,
            "kl": certificate.kl_reverse,
            "ok": certificate.ok,
            "swept": Density([(task, task.rows, None)]).sweep(0.1 * draws).tolist(),
            "fingerprint": task.rows.fingerprint(),
        }
    return found


def _processor() -> float:
    """Processor seconds of this process and of its living children, such as a cluster's workers."""
    children = psutil.Process().children(recursive=True)
    return time.process_time() + sum(sum(child.cpu_times()[:2]) for child in children)


def _workers_memory() -> float:
    """Memory of this process's living children, GiB: the most of each, where the system says it (Linux)."""
    found = 0
    for child in psutil.Process().children(recursive=True):
        with suppress(OSError, IndexError, psutil.Error):
            found += 1024 * int(Path(f"/proc/{child.pid}/status").read_text().split("VmHWM:")[1].split()[0])
    return found / 2**30


@contextmanager
def _stored(path: Path) -> Iterator[Callable[[], Any]]:
    import bayesdd

    yield lambda: bayesdd.on_disk(path, columns=["x", "y"])


@contextmanager
def _queried(path: Path) -> Iterator[Callable[[], Any]]:
    import bayesdd

    yield lambda: bayesdd.on_disk(f"SELECT * FROM '{path}'", columns=["x", "y"])


@contextmanager
def _clustered(path: Path) -> Iterator[Callable[[], Any]]:
    import dask.dataframe
    from distributed import Client, LocalCluster

    settings: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "memory_limit": 0}
    with LocalCluster(**settings) as cluster, Client(cluster) as client:
        client.run(importlib.import_module, "bayesdd.density.density")  # seconds, which are not the rows'
        yield lambda: dask.dataframe.read_parquet(path, split_row_groups=5)


@contextmanager
def _sparked(path: Path) -> Iterator[Callable[[], Any]]:
    from pyspark.sql import SparkSession

    os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    settings: dict[str, Any] = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "OFF",
    }
    session = SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
    try:
        session.range(1).count()  # it starts its processes, which are not the rows'
        yield lambda: session.read.parquet(str(path))
    finally:
        session.stop()


KINDS = {"netcdf": _stored, "parquet": _stored, "duckdb": _queried, "dask": _clustered, "spark": _sparked}


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


def pieces(count: int, dim: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Covariates (neighbours correlated at 0.5, first column 1) and outcomes, ``PIECE`` rows at a time."""
    rng = np.random.default_rng(SEED)
    steps = np.abs(np.subtract.outer(np.arange(dim), np.arange(dim)))
    factor, w = np.linalg.cholesky(0.5**steps).T, rng.normal(size=dim) / 2
    for start in range(0, count, PIECE):
        piece = rng.normal(size=(min(PIECE, count - start), dim)) @ factor
        piece[:, 0] = 1
        yield piece, (rng.uniform(size=len(piece)) < 1 / (1 + np.exp(-piece @ w))).astype(float)


def written(path: Path, count: int, dim: int) -> None:
    """A netCDF file of them."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("rows", count)
        file.createDimension("covariates", dim)
        x = file.createVariable("x", "f8", ("rows", "covariates"))
        y = file.createVariable("y", "f8", ("rows",))
        for start, (some, outcomes) in zip(range(0, count, PIECE), pieces(count, dim), strict=True):
            x[start : start + len(some)] = some
            y[start : start + len(some)] = outcomes


def tabled(path: Path, count: int, dim: int) -> None:
    """A Parquet file of them, a piece a row group."""
    import pyarrow as pa
    from pyarrow import parquet

    names = [*(f"x[{k}]" for k in range(dim)), "y"]
    with parquet.ParquetWriter(path, pa.schema([(name, pa.float64()) for name in names])) as file:
        for some, outcomes in pieces(count, dim):
            file.write_table(pa.table([*some.T, outcomes], names=names))


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
