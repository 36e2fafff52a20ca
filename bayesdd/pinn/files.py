"""Surrogates from their files. The equation is a function and stays with its user: reading needs the problem."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from bayesdd.data.files import load as loaded
from bayesdd.data.seal import check_seal
from bayesdd.numerics.refusal import Refusal, WrongType
from bayesdd.pinn.features import Features
from bayesdd.pinn.problem import Problem
from bayesdd.pinn.residuals import Networks
from bayesdd.pinn.surrogate import Surrogate
from bayesdd.pinn.terms import all_terms
from bayesdd.pinn.written import FEATURES, MARK

ALIKE = 1e-6  # relative: residuals of the same equation differ by rounding alone


def load(path: str | os.PathLike[str], problem: Problem) -> Surrogate:
    """A surrogate from its file.

    Args:
        path: What ``Surrogate.to_netcdf`` wrote.
        problem: The problem that it was fitted to.

    Raises:
        FileNotFoundError: No such file.
        Refusal: It is damaged, of another kind, or of another problem.

    Example:
        >>> surrogate.to_netcdf("decay.nc")
        >>> pinn.load("decay.nc", decay).problem is decay
        True
    """
    if not isinstance(problem, Problem):
        raise WrongType(f"pinn.load needs the pinn.Problem that was fitted, got {type(problem).__name__}.")
    dataset = loaded(path, _read, "a netCDF file of a surrogate")
    if MARK not in dataset.attrs:
        raise Refusal(f"{path} holds no surrogate: a file of Surrogate.to_netcdf was expected.")
    check_seal(dataset, str(path))
    about = json.loads(dataset.attrs[MARK])
    ranges = {name: list(bounds) for name, bounds in problem.ranges.items()}
    if about["ranges"] != ranges or about["names"] != list(problem.outputs):
        raise Refusal(
            f"{path} is of another problem: of {about['names']} over {about['ranges']}, not of {list(problem.outputs)} "
            f"over {ranges}."
        )
    values = {str(name): torch.from_numpy(np.array(variable.values)) for name, variable in dataset.variables.items()}
    seen = {
        name: ({place: values[f"{name}.{place}"] for place in problem.ranges}, values[f"{name}."])
        for name in problem.names.outputs
        if f"{name}." in values
    }
    if absent := [name for name in FEATURES if f"features_{name}" not in values]:
        raise Refusal(
            f"{path} was written by an earlier bayesdd and lacks what is added to its fields, {absent}: fit the "
            "problem again."
        )
    added = Features(**{name: values[f"features_{name}"] for name in FEATURES})
    outputs = tuple((middle, unit) for middle, unit in about["outputs"])
    networks = replace(Networks.of(problem, tuple(about["widths"]), outputs), anchor=values["anchor"], added=added)
    if networks.dim != values["theta"].shape[1]:
        raise Refusal(
            f"{path} is of another problem: {values['theta'].shape[1]} weights, where {networks.dim} are needed."
        )
    terms = all_terms(problem, seen, about["points"], about["seed"])
    hidden = tuple(about["hidden"])
    found = Surrogate(networks, hidden, tuple(terms), values["theta"], values["noise"], about["seed"], about["steps"])
    errors = np.array(list(found.errors().values()))
    if len(errors) != len(about["errors"]) or not np.allclose(errors, about["errors"], rtol=ALIKE):
        raise Refusal(
            f"{path} is of another problem: its equation or conditions leave other residuals than when written."
        )
    return found


def _read(path: Path) -> xr.Dataset:
    return xr.load_dataset(path, engine="netcdf4", decode_times=False)
