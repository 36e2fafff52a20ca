"""Numbers that seem not to fit are warned of by source, variable and number; those that fit are not."""

import warnings

import numpy as np
import pandas as pd
import pytest

from bayesdd.dbn import Source, Template
from bayesdd.dbn.likelihood.source import gathered
from bayesdd.dbn.tables.units import converted

PAIR = Template(("bili", "age"), inter=(("bili", "bili"),))
X = np.random.default_rng(0).normal(size=(60, 4, 2))


def said(sources):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gathered(PAIR, sources)
    return [str(one.message) for one in caught]


def test_populations_that_differ_a_little_are_not_warned_of():
    assert said([Source({"x": X[:30]}), Source({"x": 1.5 * X[30:] + 0.8})]) == []


def test_a_unit_that_differs_is_named_with_its_factor():
    logs = pd.DataFrame(
        {"id": np.arange(120) % 60, "t": np.arange(120) // 60, "bili": np.exp(0.5 * X[:30, :, 0].ravel())}
    )
    parts = [logs[logs["id"] < 30], logs[logs["id"] >= 30].assign(bili=lambda d: 17.1 * d["bili"])]
    for transform in ({}, {"bili": "log"}):
        made = [
            Source.from_long(part, patient="id", time="t", variables=["bili"], transform=transform) for part in parts
        ]
        only = Template(("bili",), inter=(("bili", "bili"),))
        with pytest.warns(
            UserWarning, match=r"source 1 and source 0 differ in variable 'bili': .* factor of 1[567]\S* \(17.1"
        ):
            gathered(only, made)


def test_a_code_for_not_measured_is_named_with_its_value_and_raw_scales_with_theirs():
    holed = X.copy()
    holed[3:5, 1, 0] = -999.0
    (first, *_) = said([Source({"x": holed})])
    assert first.startswith("source 0: variable 'bili' holds -999 2 times") and "NaN" in first
    raw = X.copy()
    raw[..., 1] = 50 + 10 * raw[..., 1]
    (line,) = said([Source({"x": raw})])
    assert line.startswith("variable 'age' has mean 5") and "standardise" in line


def test_units_convert_by_pint_and_amounts_by_molar_mass():
    one = np.ones(1)
    for units, names, factor in (
        (("umol/l", "mg/dl"), ("bili",), 584.66e-4),
        (("mmol/L", "mg/dl", 180.16), ("sugar",), 18.016),
        (("g/l", "g/dl"), ("albumin",), 0.1),
        (("10^9/l", "1000/mm3"), ("platelets",), 1.0),
    ):
        assert converted(one, units, names, "x")[0] == pytest.approx(factor)
    assert converted(37 * one, ("degC", "degF"), (), "x")[0] == pytest.approx(98.6)
