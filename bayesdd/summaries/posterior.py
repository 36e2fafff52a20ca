"""The posterior that a summary stands for, as a task: its prior is the model's, its log-likelihood the cubic."""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import replace
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import biject_to

from bayesdd.data.certificate import Certificate, CertificateWarning
from bayesdd.data.columns import Columns
from bayesdd.density.third import to_third_order
from bayesdd.numerics.refusal import Refusal
from bayesdd.summaries.noun import Summary
from bayesdd.task.program import Message, Program, Recorder, row_frame
from bayesdd.task.task import Task

FAR = 3.0  # posterior sds between point and mode beyond which another round is advised


def summed(summary: Summary, student: Task | None, verb: str) -> Task:
    """The task whose posterior is that of the summary.

    A cubic has no maximum. Beyond six times the posterior's bulk its third-order part fades, so that the density is
    proper; within the bulk that changes it by less than 1e-4 of that part.

    Args:
        summary: Of all sources.
        student: A task of the same model, with rows of its own.
        verb: Who asks, for messages.

    Raises:
        Refusal: There is no student, the student has another model, or the posterior curves upward at the point.

    Warns:
        CertificateWarning: The mode lies far from the point.
    """
    if student is None:
        raise Refusal(f"{verb}: a summary needs student=, a task of the model that the sources summed, with some rows")
    if student.model_hash != summary.model_hash or dict(student.sites) != summary.sites:
        raise Refusal(
            f"the summary is of {summary.task}, whose latent sites are {summary.sites}; {student.name} has another "
            "model: give student= with the model that the sources summed"
        )
    if summary.shift > FAR:
        warnings.warn(
            f"the posterior of all {summary.sources} sources has its mode {summary.shift:.1f} sds from the point of "
            "their summaries: take them again at=combined.mode",
            CertificateWarning,
            stacklevel=4,
        )
    dim = len(summary.at)
    model = functools.partial(
        cubic,
        program=student.program,
        row={name: column[:1] for name, column in student.data.items()},
        at=summary.at,
        value=summary.value,
        gradient=summary.gradient,
        hessian=summary.hessian,
        third=summary.third,
        precision=summary.precision,
        reach=6 * (dim + 6 * math.sqrt(2 * dim)),
    )
    return Task(model, {"source": torch.zeros(1, dtype=torch.float64)})


def cubic(
    source: Tensor,
    *,
    program: Program,
    row: Columns,
    at: Tensor,
    value: float,
    gradient: Tensor,
    hessian: Tensor,
    third: Tensor,
    precision: Tensor,
    reach: float,
) -> None:
    """A Pyro model: the prior of ``program``'s model, and the summed log-likelihood as one row."""

    def hidden(message: Any) -> bool:
        return type(message["fn"]).__name__ == "_Subsample" or row_frame(message, program.plate) is not None

    with Recorder() as recorder, pyro.poutine.block(hide_fn=hidden):
        program.model(**row)
    drawn: dict[str, Message] = {message["name"]: message for message in recorder.messages}
    found = [drawn[site.name] for site in program.structure.sites]
    free = torch.cat([biject_to(message["fn"].support).inv(message["value"]).flatten() for message in found])
    step = (free - at)[None]
    distance = (step @ precision * step).sum(1)
    level = to_third_order(gradient, hessian, torch.zeros_like(third), step)
    bent = to_third_order(torch.zeros_like(gradient), torch.zeros_like(hessian), third, step)
    with pyro.plate("summary", len(source)):
        pyro.factor("log_likelihood", value + level + bent / (1 + (distance / reach) ** 4) + 0 * source)


def allowing(certificate: Certificate, error: float) -> Certificate:
    """The certificate with standard errors that allow for a log-ratio known up to a remainder.

    A half-variance v becomes at most ``(sqrt(v) + error / sqrt(2))^2`` with it.

    Args:
        certificate: Against the cubic.
        error: Standard deviation of the remainder over the posterior, nats.
    """
    wider: dict[str, Any] = {}
    for name in ("kl_reverse", "kl_forward", "half_variance"):
        kl, own = getattr(certificate, name), getattr(certificate, f"{name}_se")
        most = (math.sqrt(max(kl, 0.0)) + error / math.sqrt(2)) ** 2
        wider[f"{name}_se"] = math.hypot(own, 0.5 * (most - max(kl, 0.0)))
    return replace(certificate, **wider)
