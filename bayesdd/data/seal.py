"""A seal on files: SHA-256 of everything that a dataset holds, kept among its attributes and checked on reading.

netCDF's own checksums cover the values of some variables only: a flipped bit in a header gives another number, another
name or another verdict without a word.
"""

from __future__ import annotations

import hashlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesdd.numerics.refusal import Refusal

if TYPE_CHECKING:
    import xarray as xr

SEAL = "content_sha256"


def sealed(dataset: xr.Dataset, part: str = "") -> xr.Dataset:
    """The dataset with its seal.

    Args:
        dataset: What will be written.
        part: What part of a file it is: a part in another's place breaks the seal.
    """
    return dataset.assign_attrs({SEAL: _digest(dataset, part)})


def check_seal(dataset: xr.Dataset, where: str, part: str = "", *, ours: bool = True) -> None:
    """Compares what was read with its seal; warns where a file of ours has none, as those of earlier versions.

    Raises:
        Refusal: The content is not what was written.
    """
    if SEAL in dataset.attrs:
        if str(dataset.attrs[SEAL]) != _digest(dataset, part):
            raise Refusal(f"{where} is damaged: its content is not what was written (SHA-256); take another copy")
    elif ours:
        warnings.warn(
            f"{where} holds no content hash, so that damage cannot be seen: it was written by an earlier version; "
            "write it again to give it one",
            UserWarning,
            stacklevel=3,
        )


def _digest(dataset: xr.Dataset, part: str) -> str:
    """SHA-256, hexadecimal, over the part's name, all variables with their dimensions, and all attributes."""
    digest = hashlib.sha256(f"{part}\n{_attributes(dataset.attrs)}\n".encode())
    for name in sorted(map(str, dataset.variables)):
        variable = dataset.variables[name]
        values = np.asarray(variable.values)
        digest.update(f"{name!r} {variable.dims} {values.shape} {_attributes(variable.attrs)}\n".encode())
        if values.dtype.kind in "OSU":
            digest.update(repr([str(value) for value in values.ravel()]).encode())
        else:
            if values.dtype.kind == "f":
                values = np.where(np.isnan(values), np.nan, values)  # NaNs have many bit patterns
            little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
            digest.update(f"{little.dtype.str}\n".encode())
            digest.update(little.tobytes())
    return digest.hexdigest()


def _attributes(attributes: Any) -> str:
    """Attributes in one order and spelling: files give back NumPy's numbers for Python's."""
    found = {str(name): np.asarray(value).tolist() for name, value in attributes.items() if name != SEAL}
    return repr(sorted((name, repr(value)) for name, value in found.items()))
