"""bayesdd: Bayesian dataset distillation.

A Pyro model and its rows in; a few weighted synthetic rows with the same posterior, and a certificate in nats, out.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesdd import baselines as baselines
    from bayesdd import inference as inference
    from bayesdd import kinds as kinds
    from bayesdd import matching as matching
    from bayesdd import objectives as objectives
    from bayesdd.certificate import Certificate as Certificate
    from bayesdd.certificate import CertificateWarning as CertificateWarning
    from bayesdd.certificate import certify as certify
    from bayesdd.disk import on_disk as on_disk
    from bayesdd.distillation import distill as distill
    from bayesdd.distilled import Distilled as Distilled
    from bayesdd.distilled import union as union
    from bayesdd.sampling import predict as predict
    from bayesdd.sampling import sample as sample
    from bayesdd.sampling import weighted as weighted
    from bayesdd.task import Task as Task

# Imported on first use: torch and Pyro take two seconds, which `bayesdd --help` need not wait for.
_HOMES = {
    "Certificate": "certificate",
    "CertificateWarning": "certificate",
    "certify": "certificate",
    "on_disk": "disk",
    "distill": "distillation",
    "Distilled": "distilled",
    "union": "distilled",
    "predict": "sampling",
    "sample": "sampling",
    "weighted": "sampling",
    "Task": "task",
}
_PACKAGES = ("baselines", "inference", "kinds", "matching", "objectives")
__all__ = [*_HOMES, *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"bayesdd.{_HOMES[name]}"), name)
    if name in _PACKAGES:
        return importlib.import_module(f"bayesdd.{name}")
    raise AttributeError(f"module 'bayesdd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
