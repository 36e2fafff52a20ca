"""File formats that rows are read from: a line each in ``READERS``; those that can stay on disk, ``ENGINES``.

A reader gives a mapping of arrays, an xarray Dataset, or a data frame where the file is a table.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bayesdd.data.files import load
from bayesdd.data.headers import TIMES_ON_DISK, check_netcdf, check_zarr
from bayesdd.numerics.refusal import MissingPackage, Refusal

if TYPE_CHECKING:
    import xarray as xr

ENGINES = {".nc": "netcdf4", ".zarr": "zarr"}


def endings(table: Iterable[str]) -> str:
    """In words, for messages: ``.nc, .npz or .csv``."""
    *others, last = table
    return f"{', '.join(others)} or {last}"


@contextmanager
def opened(path: Path) -> Iterator[xr.Dataset]:
    """The file, its values unread.

    Raises:
        FileNotFoundError, MissingPackage, Refusal: No such file, no package zarr, or a file of another kind.
    """
    if path.suffix not in ENGINES:
        raise Refusal(f"{path}: rows stay on disk in {endings(ENGINES)} files, not in {path.suffix or 'no ending'!r}")
    if path.suffix == ".zarr" and importlib.util.find_spec("zarr") is None:
        raise MissingPackage(f"{path}: reading Zarr needs the package zarr: pip install 'bayesdd[zarr]'")
    import xarray as xr

    settings: dict[str, Any] = {"engine": ENGINES[path.suffix], "decode_times": False, "cache": False}
    if path.suffix == ".zarr":
        settings["consolidated"] = False  # works for stores of either sort, without a warning
    what = "a netCDF file" if path.suffix == ".nc" else "a Zarr store"

    def read(path: Path) -> xr.Dataset:
        check_zarr(path) if path.suffix == ".zarr" else check_netcdf(path, TIMES_ON_DISK)
        return xr.open_dataset(path, **settings)

    dataset = load(path, read, what, folder=path.suffix == ".zarr")
    with dataset:
        yield dataset


# Ending -> module with ``read(path)``, imported when asked for, and what to call such a file.
READERS = {
    ".nc": ("bayesdd.data._netcdf", "a netCDF file"),
    ".npz": ("bayesdd.data._npz", "a NumPy archive"),
    ".csv": ("bayesdd.data._csv", "a csv table"),
}
KINDS = [*READERS, ".zarr", ".parquet"]  # all that a Task takes, in messages


def read_file(path: str | os.PathLike[str]) -> Mapping[Any, Any] | xr.Dataset | pd.DataFrame:
    """What the reader of a file's ending gives.

    Raises:
        FileNotFoundError, Refusal: No such file, one of an unknown kind, or a damaged one.
    """
    suffix = Path(path).suffix
    if suffix not in READERS:
        raise Refusal(f"{path}: rows are read from {endings(KINDS)} files, not from {suffix or 'no ending'!r}")
    module, what = READERS[suffix]
    return load(path, importlib.import_module(module).read, what)
