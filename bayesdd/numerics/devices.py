"""Devices: which one to compute on, and what memory it has."""

from __future__ import annotations

import os
import sys
from pathlib import Path

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


def available(device: torch.device) -> int:
    """Bytes that a program may still take: free ones, and on Linux those that only keep files at hand."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # macOS and Windows do not say
        return sys.maxsize
