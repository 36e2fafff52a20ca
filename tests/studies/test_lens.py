"""The lens study: its counts and stored numbers, its cells on disk, its processes and its tables."""

import io
import json
import math
from dataclasses import replace

import pytest
import torch

import bayesdd
from bayesdd.baselines import uniform
from models import logistic_regression
from studies import lens
from studies.lens import cell as measuring
from studies.lens import figure, workers
from studies.lens.cases import Case
from studies.lens.cell import Cell, counting, keep, kept, stored
from studies.lens.methods import by_name, exported
from studies.lens.table import shown, summary, winners
from studies.shared import tables


@pytest.fixture(autouse=True)
def one_source(monkeypatch):
    """The hash of all source code takes seconds of reading."""
    for module in (lens, measuring):
        monkeypatch.setattr(module, "source", lambda: "this")


@pytest.mark.parametrize("gradient", [False, True])
def test_row_likelihoods_are_counted(gradient):
    task = logistic_regression.task(rows=40, dim=3)
    draws = torch.zeros(7, 3, dtype=torch.float64, requires_grad=gradient)
    few = {name: column[:10] for name, column in task.data.items()}
    before = bayesdd.Task.log_likelihood
    with counting(40, 10) as count:
        task.log_likelihood(task.data, draws)
        task.log_likelihood(few, draws)
        task.joint_gradient(task.data, torch.ones(40, dtype=torch.float64), draws.detach())
    assert (count.values, count.gradients) == ((0, 14) if gradient else (7, 7))
    assert count.synthetic == 7 / 4
    assert bayesdd.Task.log_likelihood is before
    with counting(40, 10) as count:
        bayesdd.density.Density([(task, task.data, None)]).sweep(draws.detach())
    assert count.values == 7


def test_stored_numbers():
    task = logistic_regression.task(rows=60, dim=4)  # x: a constant and three, y
    assert stored(task, uniform(task, 10, seed=0)) == 10 * 4  # equal weights follow from N
    uneven = bayesdd.baselines.stratified(task, 11, seed=0)
    assert stored(task, uneven) == len(uneven) * 4 + len(uneven)


def test_every_exported_baseline_is_a_method():
    found = by_name()
    assert exported().keys() == {name for name, method in found.items() if method.published}
    assert {"uniform", "distill", "distill_bilevel_delta", "distill_weights_only"} <= found.keys()


def result(reverse, *, ok=False, how="importance", **others):
    kl = {"reverse": reverse, "reverse_se": 0.1 * reverse, "forward": reverse, "forward_se": 0.1 * reverse}
    found = {"kl": kl, "how": how, "mean_error": 0.5, "sd_ratio": 1.1, "held_out": -0.01, "seconds": 1.0, "ok": ok}
    found |= {"sweeps": {"values": 3.0, "gradients": 2.0, "synthetic": 9.0}, "kept": 4, "stored": 12}
    return found | {"bound": 0.0, "bound_kept": 0.0} | others


CASE = Case("tiny", "tiny task", 2, lambda *_: None, 0.5, lambda *_: None)


def test_tables_say_who_wins_and_who_was_refused(tmp_path):
    refused = {"refused": "kernel_ridge needs a covariate", "seconds": 0.0}
    cells = {
        Cell("tiny", 0, 4, "uniform"): result(9.0),
        Cell("tiny", 0, 4, "kmeans"): result(3.0),
        Cell("tiny", 1, 4, "kmeans"): result(5.0),
        Cell("tiny", 0, 4, "giga"): result(1.0, how="certificate"),  # a lower bound does not win
        Cell("tiny", 0, 4, "distill"): result(1e-3, ok=True),
        Cell("tiny", 0, 4, "iht"): refused,
        Cell("tiny", 0, 50, "uniform"): result(8.0),
    }
    table = summary([CASE], by_name(), cells)
    assert table[table.M == 4].method.tolist() == ["distill", "giga", "kmeans", "uniform", "iht"]
    row = table[table.method == "kmeans"].iloc[0]
    assert (row.reverse, row.reverse_worst, row.seeds, row.sweeps, row.uniform) == (4.0, 5.0, "2/2", 7.0, 9.0)
    winner = winners(table).iloc[0]
    assert (winner["best published"], winner["ratio"], winner["best of all"]) == ("kmeans", "4e+03", "distill")
    text = tables.markdown(shown(table))
    assert "| kernel_ridge needs a covariate |" in text
    assert ">= 1 (1)" in text
    assert table.met.all()
    figure.draw(table, [CASE], tmp_path / "lens.png")
    assert (tmp_path / "lens.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("false", "met"),
    [
        (result(0.2, ok=True), False),  # certified, and truly 0.2 nats off
        (result(0.04, ok=True, bound_kept=3.0), False),  # certified below the bound
        (result(0.04, ok=True), True),
        (result(0.2), True),
        (result(0.2, ok=None), True),
    ],
)
def test_a_certificate_that_is_wrong_is_shown(false, met):
    cells = {Cell("tiny", 0, 4, "uniform"): result(9.0), Cell("tiny", 0, 4, "kmeans"): false}
    table = summary([CASE], by_name(), cells)
    assert table[table.method == "kmeans"].met.item() is met


@pytest.mark.long
def test_a_killed_run_continues(tmp_path, monkeypatch):
    """Cells on disk are not measured again; those of other source code, failed ones and damaged ones are."""
    asked = []

    def run(cells, arguments, *, jobs, threads):
        asked.append(list(cells))
        for cell in cells[:-1]:  # the last one fails
            found = {"refused": "kmeans: no", "seconds": 0.0} if cell.method == "kmeans" else result(2.0)
            keep(cell, tmp_path / "lens", threads, found)
        return {cells[-1]: "RuntimeError: no"}

    monkeypatch.setattr(lens, "run", run)
    monkeypatch.setattr(lens, "CASES", [CASE])
    every = lens.grid([CASE], 2)
    table = lens.main(results=tmp_path, seeds=2)
    assert [*asked[0], *asked[1]] == every
    assert [cell.seed for cell in every] == sorted(cell.seed for cell in every)
    failed, whole = every[-1], (tmp_path / "lens.md").read_text()
    assert "| failed: RuntimeError: no |" in whole
    assert (tmp_path / "lens.png").exists()
    assert table[table.method == "kmeans"].line.tolist() == ["kmeans: no"] * 2
    assert table[~table.met][["M", "method"]].to_numpy().tolist() == [[failed.size, failed.method]]

    asked.clear()
    (tmp_path / "lens" / f"{every[0].name}.json").write_text("{")
    lens.main(results=tmp_path, seeds=2, only="tiny")
    assert asked == [[every[0], replace(failed, seed=0)], [failed]]
    assert (tmp_path / "lens.md").read_text() == whole  # part of the tasks is no table
    monkeypatch.setattr(measuring, "source", lambda: "other")
    assert kept(every[1], tmp_path / "lens", 1) is None


def test_what_is_slow_is_not_repeated(tmp_path, monkeypatch):
    def run(cells, arguments, *, jobs, threads):
        for cell in cells:
            seconds = 20.0 if cell.method in ("giga", "distill") else 1.0
            keep(cell, tmp_path / "lens", threads, result(2.0, seconds=seconds))
        return {}

    monkeypatch.setattr(lens, "run", run)
    monkeypatch.setattr(lens, "CASES", [CASE])
    table = lens.main(results=tmp_path, seeds=3, limit=10.0).set_index(["method", "M"])
    assert [table.seeds[method, 4] for method in ("uniform", "giga", "distill")] == ["3/3", "1/1", "3/3"]
    assert any("one seed only: giga on tiny, M = 4; giga on tiny, M = 50" in note for note in table.attrs["notes"])


@pytest.mark.long
def test_cells_are_written_whole_and_read_back(tmp_path):
    cell = Cell("gaussian_mean", 3, 50, "quasi_newton")
    assert Cell.parse(cell.name) == cell
    keep(cell, tmp_path, 1, {"kl": {"reverse": math.inf}, "kept": [1.0, math.nan]})
    found = kept(cell, tmp_path, 1)
    assert (found["kl"], found["kept"]) == ({"reverse": None}, [1.0, None])
    assert kept(cell, tmp_path, 2) is None
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_a_worker_goes_on_after_a_failure(tmp_path, monkeypatch):
    def measure(cell, *, data):
        if cell.method == "bad":
            raise RuntimeError("broken")
        return {"refused": "no"} if cell.method == "refuses" else result(1.0)

    names = [Cell("tiny", 0, 4, method).name for method in ("bad", "refuses", "good")]
    monkeypatch.setattr(workers, "measure", measure)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(names) + "\n"))
    monkeypatch.setattr("sys.stdout", io.StringIO())
    import sys

    answers = sys.stdout
    workers.work(tmp_path, data=None, threads=1)
    lines = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert lines[0] == {"error": "RuntimeError: broken"}
    assert lines[1] == {"line": "no"}
    assert {path.stem for path in tmp_path.iterdir()} == set(names[1:])


def test_processes_are_fed_replaced_and_ended(capfd):
    script = (
        "import sys, os\n"
        "for line in sys.stdin:\n"
        "    if 'dies' in line: os._exit(1)\n"
        '    print(\'{"error": "X: no"}\' if \'fails\' in line else \'{"line": "0.1 s"}\', flush=True)\n'
    )
    cells = [Cell("tiny", 0, 4, method) for method in ("a", "dies", "fails", "b")]
    failed = workers.run(cells, ["-c", script], jobs=1, threads=1)
    assert failed == {cells[1]: "the worker process died", cells[2]: "X: no"}
    assert capfd.readouterr().out.count("0.1 s (") == 2
