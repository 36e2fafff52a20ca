"""Whether two results are the same to the last bit: dataclasses, tables, tensors, ArviZ groups, whatever holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr


def equal(a: Any, b: Any) -> bool:
    """Equal types and equal content; NaN equals NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
    if isinstance(a, pd.DataFrame | pd.Series):
        return bool(a.equals(b)) and list(a.index) == list(b.index)
    if isinstance(a, xr.Dataset | xr.DataArray):
        return bool(a.identical(b))
    if hasattr(a, "groups") and callable(a.groups):  # ArviZ
        return list(a.groups()) == list(b.groups()) and all(equal(a[name], b[name]) for name in a.groups())
    if dataclasses.is_dataclass(a):
        return all(equal(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(equal(value, b[name]) for name, value in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) or (a != a and b != b)
