"""Rare values are among the starting rows, wherever the rows are, and only there."""

import re

import numpy as np
import pandas as pd
import pytest

import bayesdd
from bayesdd.data import disk
from bayesdd.data.disk import on_disk
from bayesdd.data.strata import OF_EACH, with_each_value
from bayesdd.distillation.first_stage import Run, starting_problem
from bayesdd.objectives import half_variance
from bayesdd.target.reference import build
from bayesdd.target.target import Target
from bayesdd.task.task import Task
from models import poisson_regression

pytest.importorskip("pyarrow")
N, RARE = 6_000, 4_111


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Visits, of which one row has 40; 100 of the rows are looked at."""
    monkeypatch.setattr(disk, "SAMPLE_ROWS", 100)
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"x[0]": 1.0, "x[1]": rng.normal(size=N), "y": rng.poisson(0.3, N)})
    rows.loc[RARE, "y"] = 40
    rows.to_parquet(tmp_path / "rows.parquet", row_group_size=1_000)
    return tmp_path / "rows.parquet"


def run_of(task, stratify):
    return Run(build(Target([task], task, "cpu", 0), 0), half_variance, 0, 0.05, lambda _: None, False, True, stratify)


def test_the_row_with_a_rare_outcome_is_among_the_starting_rows(path):
    task = Task(poisson_regression.model, on_disk(path, columns=["x", "y"]))
    assert 40 not in task.data["y"]  # nobody has looked at it
    plain, asked = (starting_problem(run_of(task, by), 12, None, 0) for by in (None, "y"))
    plain, asked = (set(problem.hard(problem.start)[0]["y"].round().tolist()) for problem in (plain, asked))
    assert 40 not in plain
    assert asked == set(pd.read_parquet(path)["y"].tolist())


def test_each_value_comes_a_few_times_and_all_rows_are_a_sample_already(path):
    rows = on_disk(path, columns=["x", "y"])
    found, given = with_each_value(rows, "y"), pd.read_parquet(path)
    counts = given["y"].value_counts()
    more = found["y"][len(rows.numbers) :]
    assert {int(v): int((more == v).sum()) for v in more.unique()} == {v: min(OF_EACH, n) for v, n in counts.items()}
    held = bayesdd.Task(poisson_regression.model, given, columns=["x", "y"]).rows
    assert with_each_value(held, "y") is held.sample


def test_one_line_says_what_cannot_be_strata(path):
    task = Task(poisson_regression.model, on_disk(path, columns=["x", "y"]))
    for name, hint in (("z", "there are x, y"), ("Y", "did you mean 'y'?")):
        with pytest.raises(bayesdd.Refusal, match=re.escape(f"{name!r}, which is no column of the model: {hint}")):
            bayesdd.distill(task, 8, stratify=name)
    with pytest.raises(bayesdd.Refusal, match="stratify= takes a column of one number a row, and this one has 2"):
        with_each_value(task.rows, "x")
    with pytest.raises(bayesdd.Refusal, match=r"stratify= names 'z', which has more than 1,000 values"):
        with_each_value(on_disk(path, columns={"z": "x[1]", "y": "y"}), "z")
