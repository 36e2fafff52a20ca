"""Accuracy in the outcome's own terms: each number that is asked for is a reason by itself."""

from dataclasses import replace

import pytest

from bayesdd.data.accuracy import Accuracy, Residual
from bayesdd.data.predictive import PredictiveCertificate

GOOD = Accuracy(0.01, 0.001, 0.02, 0.01, 0.91, 0.01, 0.87, asked=0.05)
BAD = {
    "means are off by 4.90% +- 0.1% of the range, more than 5.00%": {"error": 0.049},
    "at one input in ten means are off by 11.00%": {"worst_error": 0.11},
    "at one input in ten sds are too wide by 11.00%": {"too_wide": 0.11},
    "hold 96.0% +- 1.0% of the target's predictive, not 90 +- 5 %": {"held": 0.96},
    "hold 85.5% +- 1.0%": {"held": 0.855},
    "narrowest they hold 79.0%, less than 80%": {"held_narrow": 0.79},
    "means are off by nan%": {"error": float("nan")},
}


@pytest.mark.parametrize("said", BAD)
def test_every_number_is_a_reason_by_itself(said):
    found = replace(GOOD, **BAD[said]).reasons
    assert GOOD.reasons == [] and len(found) == 1 and said in found[0]
    assert replace(GOOD, **BAD[said], asked=None).reasons == []


def test_own_terms_judge_in_place_of_sds_and_conditions_know_the_truth():
    far = PredictiveCertificate(300.0, 1.0, 100.0, 1.0, draws=8, tolerance=0.05, accuracy=replace(GOOD, asked=None))
    asked = replace(far, accuracy=GOOD)
    assert not far.ok and asked.ok and "within 5.00% of the range" in asked.verdict
    start = Residual("t = 0", 0.02, 0.0, off=0.09)
    assert replace(asked, residuals=(start, Residual("equation", 0.9, 0.0))).ok
    wrong = replace(asked, residuals=(replace(start, off=0.11),))
    assert wrong.reasons == [
        "at t = 0, where the truth is known, students are off by 11.00% of the range, more than 10.00% of the range"
    ]
    doubted = replace(asked, doubt="its modes differ")
    assert doubted.reasons == ["the target itself is in doubt: its modes differ"]
    units = replace(GOOD, of_range=False, error=0.2)
    assert units.reasons[0] == "predictive means are off by 0.2 +- 0.001, more than 0.05"
