"""A stamp of rows' contents, the same whatever their order and however they are cut into blocks.

Each row becomes two whole numbers of 64 bits, linear in the bits of its values and then mixed; the stamp is their sum,
so that it can be taken in one pass, by any number of processes. Made to see changes, not to withstand forgery.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

ODD = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)  # the mixers' multipliers, of splitmix64 and of xxHash64
BLOCK = 2**15  # rows mixed at once, which stay in the CPU's cache


def stamp(rows: Mapping[str, Tensor]) -> Tensor:
    """Sums of the rows' two numbers, int64 ``(2,)``, to be added modulo 2^64.

    Args:
        rows: Column -> ``(n, ...)``, float64 or int64, on the CPU. All NaNs count as the same value.
    """
    total = np.zeros(2, dtype=np.uint64)
    columns = [rows[name] for name in sorted(rows)]
    width = sum(math.prod(column.shape[1:]) for column in columns)
    factors = np.random.default_rng(width).integers(1, 2**63, (2, width), dtype=np.uint64) * 2 + 1
    for start in range(0, len(columns[0]), BLOCK):
        pieces = [column[start : start + BLOCK] for column in columns]
        bits = [_bits(piece) for piece in pieces]
        for way, (factor, odd) in enumerate(zip(factors, ODD, strict=True)):
            mixed, at = np.full(len(bits[0]), way, dtype=np.uint64), 0
            for part in bits:
                mixed += part @ factor[at : at + part.shape[1]]
                at += part.shape[1]
            mixed ^= mixed >> np.uint64(32)
            mixed *= np.uint64(odd)
            mixed ^= mixed >> np.uint64(29)
            total[way : way + 1] += mixed.sum(dtype=np.uint64)  # modulo 2^64; a single number would warn of it
    return torch.from_numpy(total.view(np.int64))


def _bits(piece: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    if piece.is_floating_point() and bool(piece.isnan().any()):
        piece = torch.where(piece.isnan(), math.nan, piece)
    found: np.ndarray[tuple[int, int], np.dtype[np.uint64]]
    found = piece.reshape(len(piece), -1).contiguous().numpy().view(np.uint64)
    return found


def spelled(sample: Mapping[str, Tensor], total: Tensor) -> str:
    """SHA-256, hexadecimal, of a stamp and of the columns' names, types and shapes."""
    names = [(name, str(sample[name].dtype), tuple(sample[name].shape[1:])) for name in sorted(sample)]
    return hashlib.sha256(f"{names} {total.tolist()}".encode()).hexdigest()
