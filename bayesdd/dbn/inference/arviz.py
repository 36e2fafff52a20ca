"""Posteriors of a template as ArviZ objects: axes carry the names of variables and the labels of states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal
from bayesdd.posterior import arviz


def labelled(template: Template, idata: Any) -> Any:
    """What ``bayesdd.sample`` returned, with the template's names: ``dose[dose_term="pressure_before"]``.

    Takes ArviZ inference data of one of the template's tasks. Sites that are none of the template's keep their axes.
    """
    found = {}
    for group in _groups(idata):
        data = getattr(idata, group)
        data = data.to_dataset() if hasattr(data, "to_dataset") else data
        if group == "posterior":
            for site, dims in template.dims.items():
                if site in data:
                    old = [f"{site}_dim_{axis}" for axis in range(len(dims))]
                    data[site] = data[site].drop_vars(old, errors="ignore").rename(dict(zip(old, dims, strict=True)))
            unused = [
                name for name in data.coords if name not in {dim for value in data.values() for dim in value.dims}
            ]
            used = {dim: list(labels) for dim, labels in template.coords.items() if dim in data.dims}
            data = data.drop_vars(unused).assign_coords(used)
        found[group] = data
    return arviz.to_arviz(found)


def inference_data(template: Template, draws: Mapping[str, Tensor], *, chains: int = 1) -> Any:
    """Draws at hand (``Pooled.draws``, or those of :func:`bayesdd.dbn.conjugate`) as labelled ArviZ inference data.

    Args:
        template: The template.
        draws: Site -> ``(S, *shape)``, chain after chain.
        chains: Number of chains, a divisor of S.
    """
    values = {site: torch.as_tensor(value) for site, value in draws.items()}
    count = len(next(iter(values.values())))
    if count % chains:
        raise Refusal(f"inference_data: {count} draws are not {chains} chains of equal length.")
    shaped = {site: value.reshape(chains, count // chains, *value.shape[1:]) for site, value in values.items()}
    return labelled(template, arviz.to_arviz({"posterior": arviz.dataset(shaped)}))


def _groups(idata: Any) -> list[str]:
    groups = idata.groups
    return list(groups()) if callable(groups) else [group.strip("/") for group in groups if group != "/"]
