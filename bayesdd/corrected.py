"""Posterior moments corrected from the distilled to the full posterior by the certificate's importance weights."""

from __future__ import annotations

import itertools

import pandas as pd
import torch
from torch import Tensor


def corrected(values: dict[str, Tensor], log_weight: Tensor, log_ratio: Tensor) -> pd.DataFrame:
    """Means and sds of every parameter under the full posterior and under the distilled one.

    Args:
        values: Draws of the distilled posterior in the model's units, site -> ``(S, *shape)``.
        log_weight: Importance log weights of the draws, ``(S,)``.
        log_ratio: Delta, nats, ``(S,)``.

    Returns:
        Index: parameter (``w[0]``); columns ``mean``, ``sd`` (corrected), ``distilled_mean``, ``distilled_sd``.
    """
    names = [
        name + (f"[{','.join(map(str, place))}]" if place else "")
        for name, value in values.items()
        for place in itertools.product(*map(range, value.shape[1:]))
    ]
    columns = torch.cat([value.reshape(len(value), -1).double() for value in values.values()], 1)
    table = {}
    for prefix, logits in (("", log_weight + log_ratio), ("distilled_", log_weight)):
        weight = torch.softmax(logits, 0)[:, None]
        mean = (weight * columns).sum(0)
        table[f"{prefix}mean"] = mean.tolist()
        table[f"{prefix}sd"] = (weight * (columns - mean) ** 2).sum(0).sqrt().tolist()
    return pd.DataFrame(table, index=names)
