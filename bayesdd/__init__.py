"""bayesdd: Bayesian dataset distillation.

A Pyro model and its rows in; a few weighted synthetic rows with the same posterior, and a certificate in nats, out.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesdd import baselines as baselines
    from bayesdd import dbn as dbn
    from bayesdd import inference as inference
    from bayesdd import networks as networks
    from bayesdd import objectives as objectives
    from bayesdd import pinn as pinn
    from bayesdd.certificate import certify as certify
    from bayesdd.data import Certificate as Certificate
    from bayesdd.data import CertificateWarning as CertificateWarning
    from bayesdd.data import Distilled as Distilled
    from bayesdd.data import PredictiveCertificate as PredictiveCertificate
    from bayesdd.data import Refusal as Refusal
    from bayesdd.data import on_disk as on_disk
    from bayesdd.data import union as union
    from bayesdd.distillation import distill as distill
    from bayesdd.posterior import predict as predict
    from bayesdd.posterior import sample as sample
    from bayesdd.posterior import weighted as weighted
    from bayesdd.task import Task as Task
    from bayesdd.task import kinds as kinds

# Imported on first use: torch and Pyro take two seconds, which `bayesdd --help` need not wait for.
_HOMES = {
    "Certificate": "data",
    "CertificateWarning": "data",
    "Distilled": "data",
    "PredictiveCertificate": "data",
    "Refusal": "data",
    "Task": "task",
    "certify": "certificate",
    "distill": "distillation",
    "on_disk": "data",
    "predict": "posterior",
    "sample": "posterior",
    "union": "data",
    "weighted": "posterior",
}
_MODULES = {
    "baselines": "baselines",
    "dbn": "dbn",
    "inference": "inference",
    "kinds": "task.kinds",
    "networks": "networks",
    "objectives": "objectives",
    "pinn": "pinn",
}
__all__ = [*_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"bayesdd.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"bayesdd.{_MODULES[name]}")
    raise AttributeError(f"module 'bayesdd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
