"""Rows that count several times: 72 grouped ones are the 1,681 that they stand for, in every pass and verb."""

import numpy as np
import pandas as pd
import pytest
import torch

import bayesdd
from bayesdd import baselines
from bayesdd.data import disk
from bayesdd.density.control_variate import _folds
from bayesdd.density.density import Density
from bayesdd.inference.information import Information
from bayesdd.task.task import Task
from models import linear_regression, logistic_regression

TOTAL = 1681


def grouped():
    """Cells of a table of three factors of 3, 4 and 3 levels and an outcome of two, with their counts."""
    rng = np.random.default_rng(0)
    cells = np.array([(a, b, c, y) for a in range(3) for b in range(4) for c in range(3) for y in range(2)])
    share = 1 / (1 + np.exp((1 - 2 * cells[:, 3]) * (0.4 * cells[:, 0] - 0.3 * cells[:, 1])))
    counts = 1 + rng.multinomial(TOTAL - len(cells), share / share.sum())
    x = np.column_stack([np.ones(len(cells)), cells[:, :3] - 1.0])
    return pd.DataFrame({f"x[{j}]": x[:, j] for j in range(4)} | {"y": cells[:, 3], "people": counts})


def tasks(model=logistic_regression.model, source=None):
    rows = grouped()
    every = rows.loc[rows.index.repeat(rows["people"])].drop(columns="people")
    return Task(model, rows if source is None else source, weight="people"), Task(model, every)


def densities(*pair):
    return [Density([(task, task.rows, None)]) for task in pair]


def draws_of(task, count=6):
    return 0.3 * torch.randn(count, task.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_every_pass_is_that_of_the_rows_themselves(tmp_path, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    pq.write_table(pa.Table.from_pandas(grouped(), preserve_index=False), tmp_path / "rows.parquet", row_group_size=20)
    monkeypatch.setattr(disk, "SAMPLE_ROWS", 30)
    for source in (None, disk.on_disk(tmp_path / "rows.parquet", memory=4 * 48 * 25)):
        few, every = tasks(source=source)
        assert few.size == 72 and every.size == TOTAL
        draws = draws_of(every)
        a, b = densities(few, every)
        for found, expected in zip(
            (a.sweep(draws), *a.log_joint_gradient(draws), *a.likelihood_derivatives(draws[:2])),
            (b.sweep(draws), *b.log_joint_gradient(draws), *b.likelihood_derivatives(draws[:2])),
            strict=True,
        ):
            assert torch.allclose(found, expected, rtol=1e-12, atol=1e-9)
        folds = _folds(a, 20_000, 0)  # random rows stand for all of them, up to their standard error
        estimates = torch.stack([fold.sweep(draws) for fold in folds])
        apart = (estimates.mean(0) - b.sweep(draws)) / (estimates.std(0) / len(folds) ** 0.5)
        assert bool((apart.abs() < 5).all())
    assert few.total == pytest.approx(TOTAL, rel=0.5) and tasks()[0].total == TOTAL
    assert (
        few.rows.fingerprint() != Task(logistic_regression.model, grouped().drop(columns="people")).rows.fingerprint()
    )


def test_roots_of_rows_carry_their_weights():
    few, every = tasks(linear_regression.model)
    draws = draws_of(every, 2)
    sums = [
        sum((block.mT @ block for block in Information(density).blocks(draws)), torch.zeros(()))
        for density in densities(few, every)
    ]
    assert torch.allclose(*sums, rtol=1e-10)


@pytest.mark.filterwarnings("ignore:column 'x:bayesdd.DataNote")  # rows between the levels serve as well
@pytest.mark.long
def test_the_posterior_is_that_of_all_1681():
    few, every = tasks()
    distilled = bayesdd.distill(few, 8, seed=0, progress=False)
    assert distilled.certificate.ok and bayesdd.certify(every, distilled, seed=3).ok
    assert float(distilled.weight.sum()) == pytest.approx(TOTAL, rel=0.01)
    laplace = bayesdd.inference.laplace
    one, other = (bayesdd.sample(task, draws=200, chains=2, seed=0, method=laplace) for task in (few, every))
    assert np.allclose(one.posterior["w"], other.posterior["w"], atol=1e-6)


def test_new_rows_keep_the_name_of_their_weights():
    few, _ = tasks()
    twice = few.with_data(grouped().assign(people=2 * grouped()["people"]))
    assert twice.total == 2 * TOTAL
    with pytest.raises(ValueError, match="weight= names 'people', which is not there"):
        few.with_data(grouped().drop(columns="people"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Task(logistic_regression.model, grouped(), weight="peoples"), "did you mean 'people'"),
        (lambda: Task(logistic_regression.model, grouped(), weight=3), "weight= takes the name of a column, got int"),
        (
            lambda: Task(logistic_regression.model, grouped(), weight="x"),
            "weight= names 'x', which has several numbers a row",
        ),
        (lambda: Task(logistic_regression.model, grouped().assign(people=0), weight="people"), "weights are positive"),
        (
            lambda: Task(logistic_regression.model, grouped().assign(people=[None] + [1.0] * 71), weight="people"),
            "the weight of row 0 .* is nan",
        ),
        (lambda: baselines.uniform(tasks()[0], 5, seed=0), "a baseline looks at rows one by one.*repeat the rows"),
        (lambda: bayesdd.calibrate(tasks()[0], replications=20), "calibrate looks at rows one by one"),
        (
            lambda: bayesdd.sample(
                tasks()[0], draws=5, chains=2, method=bayesdd.inference.laplace, log_likelihood=True
            ),
            "log_likelihood looks at rows one by one",
        ),
    ],
)
def test_one_line_says_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
