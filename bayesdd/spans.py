"""Spans of rows of a netCDF file or a Zarr store, read one ahead."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import xarray as xr

from bayesdd.columns import tensor
from bayesdd.files import load
from bayesdd.pyro_model import Columns

T = TypeVar("T")
R = TypeVar("R")

ENGINES = {".nc": "netcdf4", ".zarr": "zarr"}


def stored_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes that the data variables of a file would take as float64."""
    with opened(Path(path)) as dataset:
        return 8 * sum(int(variable.size) for variable in dataset.data_vars.values())


def loaded(path: str | os.PathLike[str]) -> xr.Dataset:
    """A small file, read."""
    with opened(Path(path)) as dataset:
        return dataset.load()


def read_span(
    dataset: xr.Dataset, names: Iterable[str], start: int, stop: int, where: str, like: Columns | None
) -> Columns:
    """Rows ``start`` to ``stop`` as float64 or int64 tensors, of the dtypes of ``like``."""
    found = {}
    for name in names:
        variable = dataset[name]
        what = f"{where}: column {name!r}"
        column = tensor(variable.isel({variable.dims[0]: slice(start, stop)}).values, what)
        if column.is_floating_point() and bool(column.isinf().any()):
            row = start + int(column.isinf().reshape(len(column), -1).any(1).nonzero()[0])
            raise ValueError(
                f"{what} is infinite, or does not fit float64, in row {row} (from 0); use NaN for a missing value"
            )
        found[name] = column if like is None else column.to(dtype=like[name].dtype)
    return found


def ahead(do: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """``map``, one item ahead in a thread of its own (reading releases Python's lock)."""
    with ThreadPoolExecutor(1) as pool:
        coming = None
        for item in items:
            ready, coming = coming, pool.submit(do, item)
            if ready is not None:
                yield ready.result()
                del ready
        if coming is not None:
            yield coming.result()


@contextmanager
def opened(path: Path) -> Iterator[xr.Dataset]:
    """The file, its values unread.

    Raises:
        FileNotFoundError, ImportError, ValueError: No such file, no package zarr, or a file of another kind.
    """
    if path.suffix not in ENGINES:
        raise ValueError(f"{path}: rows stay on disk in .nc or .zarr files, not in {path.suffix or 'no ending'!r}")
    if path.suffix == ".zarr" and importlib.util.find_spec("zarr") is None:
        raise ImportError(f"{path}: reading Zarr needs the package zarr: pip install 'bayesdd[zarr]'")
    settings: dict[str, Any] = {"engine": ENGINES[path.suffix], "decode_times": False, "cache": False}
    if path.suffix == ".zarr":
        settings["consolidated"] = False  # works for stores of either sort, without a warning
    what = "a netCDF file" if path.suffix == ".nc" else "a Zarr store"
    dataset = load(path, lambda p: xr.open_dataset(p, **settings), what, folder=path.suffix == ".zarr")
    with dataset:
        yield dataset


def state(path: Path) -> tuple[int, ...]:
    """Size, time of the last change and place of a file; of a folder, the sums over its files."""
    files = [path] if path.is_file() else [Path(folder) / name for folder, _, found in os.walk(path) for name in found]
    stats = [file.stat() for file in files]
    return len(stats), *(sum(getattr(s, key) for s in stats) for key in ("st_size", "st_mtime_ns", "st_ino"))
