"""NumPy archives."""

from pathlib import Path
from typing import Any

import numpy as np

from bayesdd.data.headers import check_npz


def read(path: Path) -> dict[str, Any]:
    """All arrays; pickled objects are refused."""
    check_npz(path)
    # Opened by us: np.load leaks the handle of a file that turns out to be no archive.
    with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
        return dict(archive)
