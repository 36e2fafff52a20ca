"""One cell of ``pbc_merge``: a split of the patients into hospitals, or the edges that they find together."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import torch

from bayesdd import CertificateWarning
from studies.pbc_merge.pbc import sequences
from studies.pbc_merge.split import Split
from studies.shared import cells

SLICES, DRAWS, SHOWN_SIZE = 6, 800, 20
SIZES = (5, 10, 20, 50)


def measure(cell: str, *, smoke: bool = False, picture: str | Path | None = None) -> dict[str, Any]:
    """One cell: a split of the patients, or the edges learned in split 0.

    Args:
        cell: ``split-K`` or ``edges``.
        smoke: Three slices and M = 10.
        picture: File of the figure, which split 0 draws; None draws none.

    Returns:
        ``records`` and, of split 0, ``coefficients``; or ``edges``; and ``seconds``.
    """
    cells.set_threads()
    begin = time.process_time()
    sizes, size = ((10,), 10) if smoke else (SIZES, SHOWN_SIZE)
    number = 0 if cell == "edges" else int(cell.removeprefix("split-"))
    split = Split(torch.as_tensor(sequences(3 if smoke else SLICES)), number, 40 if smoke else DRAWS)
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        # What complete rows over-state is seen in the coefficients; few patients make chains slow.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", CertificateWarning)
        if cell == "edges":
            found["edges"] = split.edges()
        else:
            found["records"] = [{"split": number} | record for record in split.records(sizes)]
            if number == 0:
                found["coefficients"] = split.coefficients(size)
            if number == 0 and picture is not None:
                split.figure(size, Path(picture))
    return found | {"seconds": time.process_time() - begin}
