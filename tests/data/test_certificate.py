"""The two certificates: what is ok, in their own words, and the files of this version and the one before."""

import html
import json
import math
from dataclasses import replace

import netCDF4
import pandas as pd
import pytest
import torch

from bayesdd import Certificate, Distilled, PredictiveCertificate
from bayesdd.data.accuracy import Accuracy, Residual
from bayesdd.data.certificate import from_dict
from bayesdd.data.seal import SEAL

POSTERIOR = Certificate(
    kl_reverse=0.01, kl_reverse_se=0.001, kl_forward=0.02, kl_forward_se=0.002, half_variance=0.01,
    half_variance_se=0.001, khat=-math.inf, khat_se=0.0, ess=900.0, ess_se=3.0, sweeps=12.0, gradients=40.0,
    draws=2000, tolerance=0.05, corrected=pd.DataFrame(
        {"mean": [1.0, 2.0], "sd": [0.1, 0.2], "distilled_mean": [1.001, 2.0], "distilled_sd": [0.1, 0.201]},
        index=["a", "b[0]"]),
)  # fmt: skip
PREDICTIVE = PredictiveCertificate(0.1, 0.02, 1.1, 0.05, draws=8, tolerance=0.3)
OWN = replace(
    PREDICTIVE,
    accuracy=Accuracy(0.01, math.inf, 0.02, math.nan, 0.91, 0.01, 0.87, asked=0.05),
    residuals=(Residual("equation", 0.5, math.nan), Residual("u at 0", 0.1, 0.0, 0.02)),
    doubt="its modes differ",
)
BOTH = pytest.mark.parametrize("certificate", [POSTERIOR, PREDICTIVE, OWN])


@pytest.mark.parametrize(
    ("certificate", "begins"),
    [
        (POSTERIOR, []),
        (replace(POSTERIOR, kl_reverse=0.049), ["kl_reverse 0.049 +- 0.001 nats exceeds"]),
        (replace(POSTERIOR, kl_forward_se=math.inf), ["kl_forward at least 0.02 nats exceeds"]),
        (replace(POSTERIOR, khat=0.7), ["k-hat 0.70 is not below 0.7"]),
        (replace(POSTERIOR, khat=math.nan, better_mode=True), ["k-hat nan", "the full posterior has a mode"]),
        (PREDICTIVE, []),
        (replace(PREDICTIVE, mean_error=2.0, spread_ratio=0.5), ["predictive means are off", "spreads are 0.5"]),
        (replace(PREDICTIVE, mean_error=math.nan), ["predictive means are off by nan"]),
        (replace(PREDICTIVE, spread_ratio=math.exp(0.2), spread_ratio_se=0.07), ["spreads are 1.22"]),
    ],
)
def test_reasons_and_words(certificate, begins):
    assert len(certificate.reasons) == len(begins)
    assert all(reason.startswith(begin) for reason, begin in zip(certificate.reasons, begins, strict=True))
    assert certificate.ok is (not begins)
    assert str(certificate).startswith("NOT certified: " if begins else "certified: ")
    assert ("nats" in str(certificate)) is isinstance(certificate, Certificate)
    page = certificate._repr_html_()
    assert all(number in html.unescape(page) for number in certificate.numbers.values()) and "<table>" in page


def test_the_verdict_in_one_sentence():
    """The first mean moves by 0.01 sds, the second sd by 0.5 %."""
    assert "more than 0.01 sds, no sd by more than 0.5%" in str(POSTERIOR)
    constant = pd.DataFrame(
        {"mean": [1.0, 0.0], "sd": [1e-16, 0.0], "distilled_mean": [1.0 - 2e-16, 0.0], "distilled_sd": [3e-16, 0.0]},
        index=["L[0,0]", "L[0,1]"],
    )
    assert replace(POSTERIOR, corrected=pd.concat([POSTERIOR.corrected, constant])).verdict == POSTERIOR.verdict
    doubtful = replace(POSTERIOR, doubt="about 0.1 of the full posterior's mass lies elsewhere")
    assert not doubtful.ok and str(doubtful).startswith("NOT certified: about 0.1 of the full")
    assert "no draws from wide starts" in str(replace(POSTERIOR, searches=60))
    assert "no draws" not in str(replace(POSTERIOR, searches=60, particles=9))
    assert "inf" not in str(POSTERIOR) and "even" in POSTERIOR.numbers["importance weights"]


@BOTH
def test_the_inverse_of_to_dict(certificate):
    """Infinities and NaN too, through JSON; keys of later versions are left out."""
    odd = replace(certificate, tolerance=math.inf)
    stored = json.loads(json.dumps(odd.to_dict(), allow_nan=False)) | {"later": 1}
    found = from_dict(stored)
    assert type(found) is type(certificate) and found.to_dict() == odd.to_dict() and str(found) == str(odd)


@BOTH
def test_files_of_the_version_before(certificate, tmp_path):
    """One layout for both sorts, told apart by NaN."""
    ours = {name: value for name, value in certificate.to_dict().items() if name != "certifies"}
    nan = dict.fromkeys([*POSTERIOR.to_dict(), *PREDICTIVE.to_dict()], "nan")
    stored = nan | {"sweeps": 0.0, "gradients": 0.0, "sweeps_se": 0.0, "better_mode": False, "corrected": None} | ours
    del stored["certifies"]
    path = tmp_path / "d.nc"
    Distilled({"x": torch.zeros(2)}, torch.ones(2), certificate).to_netcdf(path)
    with netCDF4.Dataset(path, "a") as file:
        file.certificate = json.dumps(stored)
        file.delncattr(SEAL)
    with pytest.warns(UserWarning, match="no content hash"):
        found = Distilled.from_netcdf(path).certificate
    assert type(found) is type(certificate) and found.to_dict() == certificate.to_dict()
