"""Tables of comma-separated values, as pandas reads them, numbers to the last digit."""

import csv
from pathlib import Path
from typing import Any

import pandas as pd

from bayesdd.numerics.refusal import Refusal

# Before 3.1 pandas read numbers off by a last digit unless asked not to; since then the option is deprecated.
_OLD_PANDAS = tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
_EXACT: dict[str, Any] = {"float_precision": "round_trip"} if _OLD_PANDAS else {}


def read(path: Path) -> pd.DataFrame:
    """The table, its columns named as in the file.

    Raises:
        Refusal: A line has more or fewer cells than the header, or the cells stand between other marks than commas.
    """
    # pandas silently fills short lines with NaN and takes the first column of overlong ones for an index.
    with path.open(newline="", encoding="utf-8-sig") as handle:
        lines = csv.reader(handle)
        header = next(lines, [])
        if len(header) == 1 and (other := next((mark for mark in ";\t|" if mark in header[0]), None)):
            raise Refusal(f"its cells stand between {other!r}, not commas: give pandas.read_csv(path, sep={other!r})")
        for line in lines:
            if line and len(line) != len(header):
                raise Refusal(f"line {lines.line_num} has {len(line)} cells, the header {len(header)}")
    frame = pd.read_csv(path, encoding="utf-8-sig", low_memory=False, **_EXACT)
    frame.columns = pd.Index(header)
    return frame
