"""netCDF files."""

from pathlib import Path

import xarray as xr


def read(path: Path) -> xr.Dataset:
    """All variables; times stay numbers in the file's own units."""
    return xr.load_dataset(path, engine="netcdf4", decode_times=False)
