"""netCDF files."""

from pathlib import Path

import xarray as xr

from bayesdd.data.headers import check_netcdf


def read(path: Path) -> xr.Dataset:
    """All variables; times stay numbers in the file's own units."""
    check_netcdf(path)
    return xr.load_dataset(path, engine="netcdf4", decode_times=False)


def read_as_it_is(path: Path) -> xr.Dataset:
    """All variables as they are stored, fill values and units not applied."""
    check_netcdf(path)
    return xr.load_dataset(path, engine="netcdf4", decode_cf=False)
