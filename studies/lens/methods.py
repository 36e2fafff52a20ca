"""The methods of ``lens``: every published one that ``bayesdd.baselines`` exports, and the project's own objectives."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import Tensor

import bayesdd
from bayesdd import baselines, objectives

OURS = "distill"
UNIFORM = "uniform"
FAMILIES = {
    "uniform": "sampled rows",
    "stratified": "sampled rows",
    "leverage": "sampled rows",
    "kmeans": "clusters",
    "giga": "sparse regression",
    "iht": "sparse regression",
    "sparse_vi": "variational coresets",
    "quasi_newton": "variational coresets",
    "coreset_mcmc": "variational coresets",
    "psvi": "variational coresets",
    "gradient_matching": "dataset distillation",
    "trajectory_matching": "dataset distillation",
    "distribution_matching": "dataset distillation",
    "kernel_ridge": "dataset distillation",
    "unrolling": "dataset distillation",
}
# What the smoke test takes in place of a published method's own settings, wherever it has a setting of that name.
QUICK = {"iterations": 10, "steps": 5, "ahead": 5, "length": 12}


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: As in cells' names and in the table.
        family: What kind of method it is.
        run: (task, size, seed, purpose rows, quick) -> rows.
        published: Whether it is one of ``bayesdd.baselines``.
    """

    name: str
    family: str
    run: Callable[[bayesdd.Task, int, int, dict[str, Tensor], bool], bayesdd.Distilled]
    published: bool


def by_name() -> dict[str, Method]:
    """Every method; what ``bayesdd.baselines`` exports is found by inspection."""
    found = [Method(name, FAMILIES.get(name, "other"), partial(_baseline, f), True) for name, f in exported().items()]
    own: dict[str, tuple[str, dict[str, Any]]] = {
        OURS: ("divergence", {}),
        f"{OURS}_reverse_kl": ("divergence", {"objective": objectives.reverse_kl}),
        f"{OURS}_renyi": ("divergence", {"objective": partial(objectives.renyi, alpha=0.5)}),
        f"{OURS}_draws_forward_kl": ("divergence", {"objective": objectives.draws_forward_kl}),
        f"{OURS}_fisher": ("score matching", {"objective": objectives.fisher}),
        f"{OURS}_predictive_risk": ("prediction", {"objective": objectives.predictive_risk}),
        f"{OURS}_bilevel_delta": ("bilevel", {"objective": partial(objectives.bilevel, guide=AutoDelta)}),
        f"{OURS}_bilevel_normal": ("bilevel", {"objective": partial(objectives.bilevel, guide=AutoNormal)}),
        f"{OURS}_weights_only": ("divergence", {"move_rows": False}),
    }
    found += [Method(name, family, partial(_own, settings), False) for name, (family, settings) in own.items()]
    return {method.name: method for method in found}


def exported() -> dict[str, Callable[..., bayesdd.Distilled]]:
    """The functions of ``bayesdd.baselines``."""
    named = {name: getattr(baselines, name) for name in dir(baselines) if not name.startswith("_")}
    return {name: method for name, method in named.items() if inspect.isfunction(method)}


def _baseline(
    method: Callable[..., bayesdd.Distilled],
    task: bayesdd.Task,
    size: int,
    seed: int,
    purpose: dict[str, Tensor],
    quick: bool,
) -> bayesdd.Distilled:
    settings = {name: value for name, value in QUICK.items() if quick and name in inspect.signature(method).parameters}
    return method(task, size, seed=seed, **settings)


def _own(
    settings: dict[str, Any], task: bayesdd.Task, size: int, seed: int, purpose: dict[str, Tensor], quick: bool
) -> bayesdd.Distilled:
    if settings.get("objective") is objectives.predictive_risk:
        settings = settings | {"objective": partial(objectives.predictive_risk, purpose=purpose)}
    return bayesdd.distill(task, size, seed=seed, progress=False, device="cpu", **settings)
