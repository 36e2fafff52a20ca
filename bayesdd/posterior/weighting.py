"""A Pyro model with the rows' weights inside, for any Pyro inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from bayesdd.task.program import Message, Model, is_deterministic, row_frame


class RowScale(Messenger):
    """Multiplies the scale of every observed site in the row plate by the rows' weights; the prior stays as it is."""

    def __init__(self, weight: Tensor, plate: str) -> None:
        super().__init__()
        self.weight, self.plate = weight, plate

    def _pyro_sample(self, msg: Message) -> None:
        frame = row_frame(msg, self.plate)
        if frame is None or not msg["is_observed"] or is_deterministic(msg):
            return
        weight = self.weight.reshape(-1, *[1] * (-frame.dim - 1))
        msg["scale"] = weight if msg["scale"] is None else msg["scale"] * weight
        # Soft observations (0.3 of a success) lie outside the support: this site is not checked, all others are.
        fn = msg["fn"]
        while fn is not None:
            fn._validate_args = False
            fn = getattr(fn, "base_dist", None)


def weighted_model(model: Model, columns: Mapping[str, Tensor], weight: Tensor, plate: str) -> Callable[[], Any]:
    """A model of no arguments on the given rows, weights inside, in the process's default dtype."""

    def run() -> Any:
        dtype = torch.get_default_dtype()
        cast = {name: column.to(dtype) if column.is_floating_point() else column for name, column in columns.items()}
        with RowScale(weight.to(dtype), plate):
            return model(**cast)

    return run
