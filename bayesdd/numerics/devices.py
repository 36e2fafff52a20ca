"""Devices: which one to compute on."""

from __future__ import annotations

import os

import torch

from bayesdd.numerics.refusal import Refusal


def resolve(device: str | torch.device) -> torch.device:
    """The device of a name; ``auto`` is CUDA where there is a CUDA device.

    Raises:
        Refusal: CUDA was asked for and there is none, or the name is no device.
    """
    # One GPU for each rank, as torchrun numbers them on each machine.
    own = f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
    if device == "auto":
        return torch.device(own if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(own if device == "cuda" else device)
    except RuntimeError as error:
        raise Refusal(f"device must be 'auto', 'cpu' or 'cuda', got {device!r}.") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise Refusal("device='cuda' was asked for, but torch finds no CUDA device here: use device='auto' or 'cpu'.")
    return found
