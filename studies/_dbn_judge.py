"""How well draws of a network predict clean test sequences."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from models.dbn_template import Template


class Judged(NamedTuple):
    """Log-likelihood of test sequences, nats a sequence, mean over sequences.

    Attributes:
        predictive: Of the posterior predictive: each sequence's log of the average likelihood over draws.
        plugin: At the posterior mean of the parameters.
    """

    predictive: float
    plugin: float


def judged(template: Template, draws: dict[str, Tensor], test: Tensor) -> Judged:
    """Judges draws ``(S, *shape)`` of the latent sites on complete sequences ``(rows, T, V)``."""
    log = template.log_likelihood(draws, {"x": test})
    mean = {site: value.mean(0, keepdim=True) for site, value in draws.items() if site in template.sites}
    predictive = float((log.logsumexp(0) - math.log(len(log))).mean())
    return Judged(predictive, float(template.log_likelihood(mean, {"x": test}).mean()))
