"""Equal rows counted by databases: the sums of all rows, and one line for what cannot be counted."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

import bayesdd
from bayesdd.data import _grouped
from bayesdd.data.rows import opened
from bayesdd.density.density import Density
from bayesdd.task.provenance import provenance_of
from bayesdd.task.task import Task
from models import logistic_regression

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
duckdb = pytest.importorskip("duckdb")
N = 1681


def frame():
    """Three factors of 3, 4 and 3 levels and an outcome of two: 72 cells."""
    rng = np.random.default_rng(0)
    cells = np.array([(a, b, c, y) for a in range(3) for b in range(4) for c in range(3) for y in range(2)])
    some = cells[np.concatenate([np.arange(72), rng.integers(0, 72, N - 72)])]
    factors = {f"x[{k}]": some[:, k] - 1.0 for k in range(3)}
    return pd.DataFrame(
        factors
        | {"y": some[:, 3], "id": np.arange(N), "survey": rng.uniform(0.5, 2, N)}
        | {"ward": np.array(["west", "east"])[some[:, 0] % 2]}
    )


def sources(tmp_path):
    whole = pa.Table.from_pandas(frame(), preserve_index=False)
    (tmp_path / "rows").mkdir()
    for k in range(2):
        pq.write_table(whole.slice(900 * k, 900), tmp_path / "rows" / f"{k}.parquet")
    text = f"SELECT * FROM '{tmp_path}/rows/*.parquet'"
    return [frame(), whole, tmp_path / "rows", text, duckdb.sql(text)]


@pytest.mark.filterwarnings("ignore:columns:bayesdd.DataNote", "ignore:column 'id:bayesdd.DataNote")
def test_the_sums_are_those_of_all_rows(tmp_path):
    draws = 0.3 * torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for weight in (None, "survey"):
        every = Task(logistic_regression.model, frame(), columns=["x", "y"], weight=weight)
        whole = Density([(every, every.rows, None)])
        seen = set()
        for source in sources(tmp_path / str(weight)) if (tmp_path / str(weight)).mkdir() is None else ():
            few = Task(logistic_regression.model, bayesdd.grouped(source), columns=["x", "y"], weight=weight)
            assert few.size == 72 and few.rows.counted == N and few.total == pytest.approx(every.total, rel=1e-12)
            found = Density([(few, few.rows, None)])
            for a, b in zip(
                (found.sweep(draws), *found.log_joint_gradient(draws)),
                (whole.sweep(draws), *whole.log_joint_gradient(draws)),
                strict=True,
            ):
                assert torch.allclose(a, b, rtol=1e-12, atol=1e-9)
            seen.add(few.rows.fingerprint())
        assert len(seen) == 1  # whatever the order in which the database gives them
    assert provenance_of(few, [few], 0, 8, "half_variance")["counted"] == [N]
    assert "counted" not in provenance_of(every, [every], 0, 8, "half_variance")


def test_weights_are_summed_alike_by_any_number_of_threads_in_any_order():
    """To the last digit, and as exactly as they can be; a zero with a sign is a zero."""
    rng, count = np.random.default_rng(0), 400_000
    weight = np.exp(5 * rng.normal(size=count))
    rows = pd.DataFrame({"x": rng.choice([-0.0, 0.0, 1.0], count), "w": weight})
    seen = set()
    for threads, given in ((1, rows), (4, rows), (3, rows.sample(frac=1, random_state=1))):
        with duckdb.connect(config={"threads": threads}) as base:
            few = opened(bayesdd.grouped(base.from_df(given)), ["x"], weight="w")
        seen.add(few.fingerprint())
    assert len(seen) == 1
    exact = [math.fsum(weight[rows["x"] == value]) for value in (0.0, 1.0)]
    assert few.sample_weight.tolist() == pytest.approx(exact, rel=2**-52)


def test_text_lists_and_nulls_are_grouped(tmp_path):
    rows = pa.table(
        {
            "s": pa.array(["b", "a", None, "b", "a", None]).dictionary_encode(),
            "l": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]] * 2),
            "d": pa.array([1, None, 3] * 2),
        }
    )
    found = opened(bayesdd.grouped(rows), ["s", "l", "d"])
    assert found.labels["s"] == opened(rows, ["s"]).labels["s"] and found.sample_weight.tolist() == [2.0, 2.0, 2.0]
    by = found.columns["l"][:, 0].argsort()
    assert found.columns["d"][by].nan_to_num(-1).tolist() == [1, -1, 3]
    assert found.columns["s"][by].isnan().tolist() == [False, False, True]


def test_one_line_says_what_cannot_be_counted(tmp_path, monkeypatch):
    rows = frame()
    for given, settings, message in (
        ({"y": rows["y"]}, {}, "grouped.. takes files of Parquet or Arrow, a query, or a data frame, got dict"),
        ("rows.nc", {}, "got rows.nc"),
        (rows, {"weight": "wards"}, "weight= names 'wards', which is not there: did you mean 'ward'"),
        (rows, {"weight": "ward"}, "weight= names 'ward', which holds labels"),
        (rows.assign(survey=rows["survey"] - 1), {"weight": "survey"}, r"'survey' is missing, or -0\.\d+"),
        (rows.assign(survey=rows["survey"].where(rows["id"] > 3)), {"weight": "survey"}, "'survey' is missing, or 0"),
        (rows.assign(survey=np.inf), {"weight": "survey"}, "'survey' has a weight of inf; weights are positive"),
        (rows.assign(y=pd.Timestamp("2020-01-01")), {}, "'y' holds timestamp.*; give days since the first"),
        (rows[:0], {}, "no rows"),
    ):
        with pytest.raises(bayesdd.Refusal, match=message) as caught:
            opened(bayesdd.grouped(given), None, lambda names: ["y"], None, settings.get("weight"))
        assert "\n" not in str(caught.value)
    with pytest.raises(bayesdd.Refusal, match="weight= names 'ward', which holds labels"):  # not its codes
        opened(rows, ["y"], weight="ward")
    monkeypatch.setattr(_grouped, "MOST", 100)
    with pytest.raises(bayesdd.Refusal, match="more than 100 distinct rows"):
        opened(bayesdd.grouped(rows), ["id"])
    with pytest.raises(bayesdd.Refusal, match=r"looks at rows one by one, and each of .* counts several times"):
        Task(logistic_regression.model, bayesdd.grouped(rows), columns=["x", "y"]).refuse_weights("sample()")
