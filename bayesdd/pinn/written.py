"""Surrogates as sealed netCDF files: weights, noise scales and measurements."""

from __future__ import annotations

import json
import os
from typing import Any

import xarray as xr

from bayesdd.data.files import replacing
from bayesdd.data.seal import sealed

MARK = "bayesdd_surrogate"
FEATURES = {"weight": ("input", "feature"), "bias": ("feature",), "out": ("mode", "feature", "field")}


def write(surrogate: Any, path: str | os.PathLike[str]) -> None:
    """Weights, scales and measurements, whole or not at all."""
    variables: dict[str, Any] = {
        "theta": (("mode", "weight"), surrogate.theta.cpu().numpy()),
        "anchor": (("mode", "weight"), surrogate.networks.anchor.cpu().numpy()),
        "noise": (("mode", "group"), surrogate.noise.cpu().numpy()),
    }
    for name, axes in FEATURES.items():
        variables[f"features_{name}"] = (axes, getattr(surrogate.networks.added, name).cpu().numpy())
    for term in surrogate.terms:
        if term.observed is not None:
            dim = f"rows_{term.names[0]}"
            for name, column in {**term.points, "": term.observed[:, 0]}.items():
                variables[f"{term.names[0]}.{name}"] = ((dim,), column.cpu().numpy())
    networks = surrogate.networks
    about = {
        "seed": surrogate.seed,
        "steps": surrogate.steps,
        "points": next(term.count for term in surrogate.terms if term.observed is None),
        "hidden": surrogate.hidden,
        "widths": networks.fields.hidden,
        "outputs": networks.fields.outputs,
        "ranges": networks.problem.ranges,
        "names": list(networks.problem.outputs),
        "errors": list(surrogate.errors().values()),
    }
    dataset = xr.Dataset(variables, attrs={MARK: json.dumps(about)})
    with replacing(path) as part:
        sealed(dataset).to_netcdf(str(part), engine="netcdf4")
