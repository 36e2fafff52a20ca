"""Posteriors as ArviZ objects: the only file that knows ArviZ and its two generations.

ArviZ 0.23 holds groups in an `InferenceData`, ArviZ 1.x in an `xarray.DataTree`; the groups themselves are ordinary
`xarray.Dataset`s in both. Everything is therefore built as Datasets and wrapped once. ArviZ is imported where it is
used, because that takes a second.
"""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayesdd.data.files import load, replacing
from bayesdd.data.headers import check_netcdf
from bayesdd.data.seal import SEAL, check_seal, sealed
from bayesdd.numerics.refusal import Refusal


def to_arviz(groups: Mapping[str, xr.Dataset]) -> Any:
    """Wrap groups such as `posterior` and `sample_stats`: `InferenceData` under ArviZ 0.23, `DataTree` under 1.x."""
    inference_data = _inference_data()
    return xr.DataTree.from_dict(dict(groups)) if inference_data is None else inference_data(**groups)


def dataset(
    values: Mapping[str, Any],
    lead: Sequence[str] = ("chain", "draw"),
    dims: Mapping[str, Sequence[str]] | None = None,
    attrs: Mapping[str, Any] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
) -> xr.Dataset:
    """One group: named arrays with named dimensions and integer coordinates.

    Args:
        values: name -> tensor or array of shape ``(*lead, *shape)``; row-wise groups have ``lead=("row",)``.
        lead: names of the leading dimensions, common to all values.
        dims: name -> names of the trailing dimensions; by default `w_dim_0`, `w_dim_1`, ... as in ArviZ.
        coords: dimension -> names along it; by default numbers from 0.
        attrs: attributes; what netCDF cannot hold (dicts, None, booleans) is stored as JSON.

    Raises:
        Refusal: too few dimensions for a value, lengths that disagree, or a value named like a dimension.
    """
    dims = dims or {}
    variables: dict[str, tuple[tuple[str, ...], np.ndarray[Any, Any]]] = {}
    lengths: dict[str, int] = {}
    for name, value in values.items():
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        trailing = dims.get(name) or [f"{name}_dim_{i}" for i in range(array.ndim - len(lead))]
        names = (*lead, *trailing)
        if len(names) != array.ndim:
            raise Refusal(f"{name!r} of shape {array.shape} needs {array.ndim} dimension names, got {names}")
        for dim, length in zip(names, array.shape, strict=True):
            if lengths.setdefault(dim, length) != length:
                raise Refusal(f"{name!r} has length {length} along {dim!r}, other values have {lengths[dim]}")
        variables[name] = (names, array)
    if clash := sorted(set(variables) & set(lengths)):
        raise Refusal(f"{clash[0]!r} is the name of a value and of a dimension; rename the site, or pass dims=")
    along = {dim: (coords or {}).get(dim, np.arange(length)) for dim, length in lengths.items()}
    return xr.Dataset(variables, along, {key: _attribute(value) for key, value in (attrs or {}).items()})


def with_group(idata: Any, name: str, group: xr.Dataset) -> Any:
    """The same inference data with one group more, or another in its place; the given object stays as it is."""
    if _inference_data() is None:
        groups = {key: node.to_dataset() for key, node in idata.children.items()}
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=idata.attrs), **groups, name: group})
    groups = {key: idata[key] for key in idata.groups()}
    return type(idata)(attrs=idata.attrs, **{**groups, name: group})


def labelled(group: xr.Dataset, posterior: xr.Dataset) -> xr.Dataset:
    """A group of as many chains and draws as a posterior, under the posterior's labels of them."""
    labels = {dim: posterior[dim].values for dim in ("chain", "draw") if dim in posterior.coords}
    return group.assign_coords(labels)


def draws_from(idata: Any, sites: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The latent sites' constrained draws, chains joined, as float64 tensors ``(chains * draws, *shape)``.

    Args:
        idata: what `to_arviz` or any Pyro program through ArviZ made.
        sites: name -> shape of one draw (`task.sites`).

    Raises:
        Refusal: no posterior group, a site it lacks, or a site of another shape.
    """
    if isinstance(idata, str | os.PathLike):
        raise Refusal(f"posterior draws are needed, got the path {str(idata)!r}: read it by bayesdd.posterior.read")
    posterior = getattr(idata, "posterior", None)
    if posterior is None:
        raise Refusal("the inference data have no group 'posterior'; pass what bayesdd.sample returned")
    draws = {}
    for name, shape in sites.items():
        if name not in posterior:
            raise Refusal(
                f"the posterior has no site {name!r}, only {sorted(posterior.data_vars)}; "
                f"was it drawn from another model?"
            )
        array = np.asarray(posterior[name].transpose("chain", "draw", ...).values, dtype=np.float64)
        if array.shape[2:] != tuple(shape):
            raise Refusal(
                f"site {name!r} has shape {array.shape[2:]} in the posterior, but {tuple(shape)} in the model; "
                f"was it drawn from another model?"
            )
        draws[name] = torch.from_numpy(np.array(array.reshape(-1, *shape)))
    return draws


class Diagnostics(NamedTuple):
    """What chains say about some quantities.

    Attributes:
        rhat: Split R-hat by ranks, ``(quantities,)``.
        ess: Effective sample size for the mean ("bulk"), ``(quantities,)``.
    """

    rhat: np.ndarray[Any, Any]
    ess: np.ndarray[Any, Any]


def function_diagnostics(values: Any) -> Diagnostics:
    """R-hat and effective sample size of functions of the draws, such as a network's values at some inputs.

    A network's weights are not identified: their R-hat can be large where that of the network's values is near one.

    Args:
        values: Tensor or array ``(chains, draws, quantities)``, or ``(chains, draws)`` for a single one.

    Raises:
        Refusal: Another shape, fewer than two chains or four draws, or values that are not finite.

    Source: Vehtari, Gelman, Simpson, Carpenter & Buerkner, "Rank-normalization, folding, and localization: an improved
    R-hat for assessing convergence of MCMC", Bayesian Analysis 2021, doi:10.1214/20-BA1221.
    """
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[0] < 2 or array.shape[1] < 4:
        raise Refusal(
            f"function_diagnostics needs values (chains, draws, quantities) of at least two chains and four draws, got "
            f"{array.shape}."
        )
    if not np.isfinite(array).all():
        raise Refusal("function_diagnostics needs finite values: some draws give NaN or infinity.")
    _inference_data()  # imports ArviZ, quietly
    import arviz

    group = dataset({"u": array}, dims={"u": ["quantity"]})
    return Diagnostics(np.asarray(arviz.rhat(group)["u"]), np.asarray(arviz.ess(group)["u"]))


def write(idata: Any, path: str | os.PathLike[str]) -> None:
    """Write to netCDF with content hashes, whole or not at all.

    Raises:
        OSError: It cannot be written (one line); an earlier file at `path` stays.
    """
    groups = groups_of(idata)
    whole = {name: sealed(group, _part(name, groups)) for name, group in groups.items()}
    with replacing(path) as part:
        to_arviz(whole).to_netcdf(str(part), engine="netcdf4")


def groups_of(idata: Any) -> dict[str, xr.Dataset]:
    """The groups of either generation's object by name."""
    if hasattr(idata, "groups") and callable(idata.groups):
        return {name: idata[name] for name in idata.groups()}
    return {name: node.to_dataset() for name, node in idata.children.items()}


def _part(name: str, groups: Mapping[str, Any]) -> str:
    """What a group's seal says of its place: a file that lost or changed groups is damaged."""
    return f"{name} of {sorted(groups)}"


def read(path: str | os.PathLike[str]) -> Any:
    """Read what `write` or either generation of ArviZ wrote, into memory; the file is closed again.

    Raises:
        FileNotFoundError: no such file.
        Refusal: damaged, not netCDF, or without groups. A posterior of bayesdd's earlier versions, which has no content
            hash, is read with a warning; other programs' files have none.
    """
    groups = load(path, _read_groups, "a netCDF file of ArviZ groups")
    if not groups:
        raise Refusal(f"{path} holds no groups; a posterior written by bayesdd.sample or ArviZ was expected")
    own = any(str(group.attrs.get("inference_library")) == "bayesdd" for group in groups.values())
    sealed_one = any(SEAL in group.attrs for group in groups.values())
    for at, (name, group) in enumerate(groups.items()):
        check_seal(group, str(path), _part(name, groups), ours=sealed_one or (own and at == 0))
    return load(path, lambda _: to_arviz(groups), "a netCDF file of ArviZ groups")


def _inference_data() -> type[Any] | None:
    """ArviZ 0.23's class of that name; None under 1.x."""
    with warnings.catch_warnings():
        # 0.23 announces 1.x on every import.
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    # Not hasattr: 1.3 has the old name too, but as DataTree, which takes no groups, and warns.
    found: type[Any] | None = vars(arviz).get("InferenceData")
    return found


def _attribute(value: Any) -> Any:
    if isinstance(value, str | np.number) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return json.dumps(value)


def _read_groups(path: Path) -> dict[str, xr.Dataset]:
    check_netcdf(path)
    groups = xr.open_groups(path, engine="netcdf4")
    try:
        return {name.strip("/"): group.load() for name, group in groups.items() if name != "/"}
    finally:
        for group in groups.values():
            group.close()
