"""File formats that rows are read from: a reader and its line in ``READERS``; those that can stay on disk, ``ENGINES``.

A reader takes a path and gives a mapping of arrays, an xarray Dataset, or a data frame where the file is a table.
"""

from __future__ import annotations

import csv
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesdd.data.files import load
from bayesdd.numerics.refusal import MissingPackage, Refusal

# Before 3.1 pandas read numbers off by a last digit unless asked not to; since then the option is deprecated.
_OLD_PANDAS = tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
_EXACT: dict[str, Any] = {"float_precision": "round_trip"} if _OLD_PANDAS else {}
ENGINES = {".nc": "netcdf4", ".zarr": "zarr"}


def endings(table: Iterable[str]) -> str:
    """In words, for messages: ``.nc, .npz or .csv``."""
    *others, last = table
    return f"{', '.join(others)} or {last}"


def stored_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes that the data variables of a file would take as float64."""
    with opened(Path(path)) as dataset:
        return 8 * sum(int(variable.size) for variable in dataset.data_vars.values())


def loaded(path: str | os.PathLike[str]) -> xr.Dataset:
    """A small file, read."""
    with opened(Path(path)) as dataset:
        return dataset.load()


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
    settings: dict[str, Any] = {"engine": ENGINES[path.suffix], "decode_times": False, "cache": False}
    if path.suffix == ".zarr":
        settings["consolidated"] = False  # works for stores of either sort, without a warning
    what = "a netCDF file" if path.suffix == ".nc" else "a Zarr store"
    dataset = load(path, lambda p: xr.open_dataset(p, **settings), what, folder=path.suffix == ".zarr")
    with dataset:
        yield dataset


def _read_nc(path: Path) -> xr.Dataset:
    with xr.open_dataset(path, engine="netcdf4", decode_times=False) as dataset:
        return dataset.load()


def _read_npz(path: Path) -> dict[str, Any]:
    # Opened by us: np.load leaks the handle of a file that turns out to be no archive.
    with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
        return dict(archive)


def _read_csv(path: Path) -> pd.DataFrame:
    # pandas silently fills short lines with NaN and takes the first column of overlong ones for an index.
    with path.open(newline="", encoding="utf-8-sig") as handle:
        lines = csv.reader(handle)
        header = next(lines, [])
        for line in lines:
            if line and len(line) != len(header):
                raise Refusal(f"line {lines.line_num} has {len(line)} cells, the header {len(header)}")
    frame = pd.read_csv(path, encoding="utf-8-sig", low_memory=False, **_EXACT)
    frame.columns = pd.Index(header)
    return frame


# Ending -> reader of a path, and what to call such a file.
READERS: dict[str, tuple[Callable[[Path], Mapping[Any, Any] | xr.Dataset | pd.DataFrame], str]] = {
    ".nc": (_read_nc, "a netCDF file"),
    ".npz": (_read_npz, "a NumPy archive"),
    ".csv": (_read_csv, "a csv table"),
}
