"""Every kind of file that bayesdd writes, and the formats of rows that it reads: made, read, and what was in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr

import bayesdd
from bayesdd import pinn
from bayesdd.data.rows import opened
from bayesdd.density import checkpoint
from bayesdd.posterior import arviz
from studies.trust.tasks import regression

ROWS = 40
DOCUMENTED = (bayesdd.Refusal, OSError)


class Written(NamedTuple):
    """A file as it was written.

    Attributes:
        files: The file; of a Zarr store all of its files.
        read: Reads it and returns its content.
        content: The content as it was written.
        documented: Types of errors that reading may raise.
    """

    files: list[Path]
    read: Callable[[], Any]
    content: Any
    documented: tuple[type[Exception], ...] = DOCUMENTED


def _made(files: list[Path], read: Callable[[], Any]) -> Written:
    return Written(files, read, read())


def _distilled(folder: Path) -> Written:
    path = folder / "d.nc"
    bayesdd.distill(regression(ROWS), size=4, tolerance=100.0, progress=False).to_netcdf(path)
    return _made([path], lambda: bayesdd.Distilled.from_netcdf(path))


def _posterior(folder: Path) -> Written:
    path, task = folder / "p.nc", regression(ROWS)
    idata = bayesdd.sample(task, draws=20, chains=2, method=bayesdd.inference.laplace, log_likelihood=True)
    arviz.write(idata, path)
    return _made([path], lambda: arviz.read(path))


def _summary(folder: Path) -> Written:
    path = folder / "s.nc"
    bayesdd.summary(regression(ROWS)).to_netcdf(path)
    return _made([path], lambda: bayesdd.Summary.from_netcdf(path))


def _surrogate(folder: Path) -> Written:
    path = folder / "u.nc"
    problem = pinn.Problem(
        inputs={"t": (0.0, 1.0)},
        outputs={"u": (0.0, 1.0)},
        equation=lambda s, p: s.u_t + s.u,
        conditions=[pinn.at(t=0.0, u=1.0)],
    )
    pinn.fit(problem, seed=0, hidden=(4,), modes=1, steps=40).to_netcdf(path)

    def read() -> tuple[Any, ...]:
        found = pinn.load(path, problem)
        return found.theta, found.noise, found.seed, found.steps, found.errors()

    return _made([path], read)


def _checkpoint(folder: Path) -> Written:
    """Sums as a run takes them: those that are damaged are computed anew, and said."""
    path, task = folder / "c", regression(ROWS)
    draws = [torch.full((3, 2), float(k), dtype=torch.float64) for k in range(8)]
    known = [torch.arange(5, dtype=torch.float64) * math.pi + k for k in range(8)]

    def sums() -> list[Any]:
        kept = checkpoint.Checkpoint(path, [task])
        kept._writable = not path.exists()
        return [
            kept.sums("sweep", at, checkpoint.LEAST_CELLS, partial(list, [made]))[0]
            for at, made in zip(draws, known, strict=True)
        ]

    sums()
    return _made([path], sums)


def _table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"x": rng.normal(size=ROWS), "n": rng.integers(9, size=ROWS), "y": rng.normal(size=ROWS)})


def _rows(name: str, write: Callable[[Path], Any]) -> Callable[[Path], Written]:
    def made(folder: Path) -> Written:
        path = folder / name
        write(path)
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]

        def read() -> dict[str, torch.Tensor]:
            rows = opened(path)
            return rows.take(torch.arange(rows.size))

        return _made(sorted(files), read)

    return made


def _npz(path: Path) -> None:
    columns: dict[str, Any] = {str(name): column.to_numpy() for name, column in _table().items()}
    np.savez(path, **columns)


def _netcdf(path: Path) -> None:
    xr.Dataset.from_dataframe(_table()).to_netcdf(path, engine="netcdf4")


OURS: dict[str, Callable[[Path], Written]] = {
    "distilled": _distilled,
    "posterior": _posterior,
    "summary": _summary,
    "surrogate": _surrogate,
    "checkpoint": _checkpoint,
}
FOREIGN: dict[str, Callable[[Path], Written]] = {
    "netCDF of rows": _rows("r.nc", _netcdf),
    "npz": _rows("r.npz", _npz),
    "zarr": _rows("r.zarr", lambda path: xr.Dataset.from_dataframe(_table()).to_zarr(path, consolidated=False)),
    "csv": _rows("r.csv", partial(_table().to_csv, index=False)),
    "parquet": _rows("r.parquet", _table().to_parquet),
    "arrow": _rows("r.arrow", _table().to_feather),
}
