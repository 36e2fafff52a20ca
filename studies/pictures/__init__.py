"""The pictures of README and pages, drawn from the committed tables in studies/results/.

Question: what do the tables say at a glance?
Claim: each picture fits in 150 kB and carries the hash of its table, so that a picture older than its table is found.
How it could fail: a table is written anew and its picture is not.
Cost: seconds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from studies.pictures import hospitals, networks, posteriors, seconds
from studies.pictures.read import tables_of
from studies.shared import cells, figures

LARGEST = 150_000  # bytes


def main(*, smoke: bool = False, results: str | Path = "docs/pictures") -> pd.DataFrame:
    """Draws every picture.

    Args:
        smoke: The same; it takes seconds anyway.
        results: Folder to write to.

    Returns:
        One row a picture: its table, its bytes, ``met`` whether they are few enough.
    """
    found = []
    for name, (table, draw) in PICTURES.items():
        path = Path(results) / f"{name}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        figures.write(draw(tables_of(table)), path, Description=f"{table}.md {hash_of(table)}", Date=None)
        # Matplotlib ends lines with blanks.
        path.write_text(re.sub(r" +$", "", path.read_text(), flags=re.MULTILINE))
        size = path.stat().st_size
        found.append({"picture": name, "table": f"{table}.md", "bytes": size, "met": size <= LARGEST})
        print(f"wrote {path}: {size:,} bytes")
    return pd.DataFrame(found)


def hash_of(table: str) -> str:
    """SHA-256 of a committed table, its first twelve digits."""
    return hashlib.sha256((cells.RESULTS / f"{table}.md").read_bytes()).hexdigest()[:12]


PICTURES: dict[str, tuple[str, Callable[[dict[str, pd.DataFrame]], Any]]] = {
    "quickstart": ("quickstart", posteriors.quickstart),
    "accuracy": ("glm_accuracy", posteriors.accuracy),
    "methods": ("lens", posteriors.methods),
    "dbn_size": ("dbn_merge", hospitals.dbn_size),
    "dbn_slices": ("dbn_merge", hospitals.dbn_slices),
    "dbn_course": ("dbn_course", hospitals.dbn_course),
    "hospitals": ("pbc_merge", hospitals.hospitals),
    "ends": ("pbc_ends", hospitals.ends),
    "pooling": ("pooling", hospitals.pooling),
    "equations": ("equations", networks.equations),
    "certified_rows": ("certified_rows", networks.certified_rows),
    "bpinn": ("bpinn", networks.bpinn),
    "pinn_error": ("pinn_ood", networks.pinn_error),
    "network_rows": ("bnn_rows", networks.network_rows),
    "contract": ("contract", posteriors.contract),
    "trust": ("trust", posteriors.trust),
    "speed": ("speed", seconds.speed),
    "scale": ("scale", seconds.scale),
    "gpu": ("gpu", seconds.gpu),
    "samplers": ("samplers", seconds.samplers),
}
