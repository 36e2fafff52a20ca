"""Every study runs at smoke size and its table says what it claims; the independent KLs are right."""

import importlib.util
import inspect
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayesdd
import studies
from models import gaussian_mean, linear_regression
from studies import glm_accuracy
from studies.shared import cells, commands, densities, posteriordb, tables, true_kl

FOLDER = Path(studies.__file__).parent
PACKAGES = sorted(path.parent.name for path in FOLDER.glob("*/__main__.py"))
MODULES = sorted([*PACKAGES, *(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")])
DATA = Path(os.environ.get("BAYESDD_DATA") or "no such folder")
needs_posteriordb = pytest.mark.skipif(not (DATA / "posteriordb").is_dir(), reason="BAYESDD_DATA names no posteriordb")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Smoke table of every study, each run once, with the folder it wrote to."""
    kept = {}

    def table(name):
        if name not in kept:
            folder = tmp_path_factory.mktemp(name)
            kept[name] = importlib.import_module(f"studies.{name}").main(smoke=True, results=folder), folder
        return kept[name]

    return table


# Rows of tiny data may lie outside their range, and a note says so.
pytestmark = pytest.mark.filterwarnings("ignore:column .* of the synthetic rows:bayesdd.DataNote")


@pytest.mark.long
@pytest.mark.parametrize("name", MODULES)
def test_smoke(name, made):
    module = importlib.import_module(f"studies.{name}")
    assert "Claim:" in module.__doc__
    assert {"smoke", "results"} <= set(inspect.signature(module.main).parameters)
    table, _ = made(name)
    assert len(table) > 0
    if "met" in table:
        assert table["met"].all(), table


@pytest.mark.parametrize("name", MODULES)
def test_a_name_that_nothing_has_is_refused_with_those_there_are(name, tmp_path):
    main = importlib.import_module(f"studies.{name}").main
    if "only" in inspect.signature(main).parameters:
        with pytest.raises(bayesdd.Refusal, match=r"name contains 'nothing'; there are .*, "):
            main(only="nothing", results=tmp_path)


@pytest.mark.long
def test_a_refusal_is_one_line_at_the_command_line(tmp_path):
    command = [sys.executable, "-m", "studies.speed", "--results", str(tmp_path), "--covariates", "7"]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("error: speed has no cells of 7 covariates; there are 10 and 50.")


@pytest.mark.long
def test_quickstart_puts_both_posteriors_side_by_side(made):
    table, folder = made("quickstart")
    assert table.attrs["ok"]
    error = np.sqrt(1 / table.full_ess + 1 / table.distilled_ess)  # of a mean, in sds
    assert (table["shift"].abs() < 0.2 + 4 * error).all()
    assert ((table["sd_ratio"] - 1).abs() < 0.1 + 4 * error).all()
    assert (table[["full_rhat", "distilled_rhat"]] < 1.05).all(axis=None)
    written = {"distilled.nc", "posterior_distilled.nc", "posterior_full.nc", "figure.png", "table.md"}
    assert {path.name for path in folder.iterdir()} == written


@pytest.mark.long
def test_glm_accuracy_at_smoke_size(made):
    table, _ = made("glm_accuracy")
    for name in ("certificate contains it", "certified", "constants kept"):
        assert all(part == whole for part, whole in table[name].str.split("/")), table[name]
    assert len(table) == sum(case.in_smoke and not case.file for case in glm_accuracy.CASES)


def test_data_that_are_missing_are_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "run", lambda commands, *_, **__: {cell: {"error": "not run"} for cell in commands})
    table = glm_accuracy.main(data=tmp_path, results=tmp_path, only="ds1_13")
    assert len(table) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("skipped ds1_13: ")


@pytest.mark.long
def test_cells_are_kept_failures_are_tried_again(tmp_path, capsys):
    count = tmp_path / "count"
    script = (
        f"import pathlib; p = pathlib.Path({str(count)!r}); p.write_text(p.read_text() + '.' if p.exists() else '.');"
        "print('{\"seconds\": 0.5}')"
    )
    commands = {"good": ["-c", script], "bad": ["-c", "raise ValueError('no such thing')"]}
    for _ in range(2):
        measured = cells.run(commands, tmp_path / "cells", "studies.quickstart", threads=1, jobs=2)
    assert count.read_text() == "."
    assert measured["good"]["seconds"] == 0.5
    assert measured["bad"] == {"error": "ValueError: no such thing"}
    assert capsys.readouterr().out.count("bad: FAILED") == 2
    (tmp_path / "cells" / "good.json").write_text("{")  # a damaged cell is measured again
    cells.run(commands, tmp_path / "cells", "studies.quickstart", threads=1, jobs=1)
    assert count.read_text() == ".."
    assert json.loads((tmp_path / "cells" / "good.json").read_text())["seconds"] == 0.5


@pytest.mark.long
@pytest.mark.parametrize("name", ["quickstart", "scale"])  # a file and a folder
def test_a_study_says_what_it_is_from_the_command_line(name):
    done = subprocess.run(
        [sys.executable, "-m", f"studies.{name}", "--help"], cwd=cells.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"python -m studies.{name}" in done.stdout
    assert "--smoke" in done.stdout


def test_every_folder_of_parts_is_a_study():
    parts = {path.parent.name for path in FOLDER.glob("*/*.py")} - {"shared"}
    assert parts == set(PACKAGES)


@pytest.mark.parametrize("name", MODULES)
def test_every_option_has_its_line_of_help(name):
    main = importlib.import_module(f"studies.{name}").main
    assert commands._helps(main).keys() == inspect.signature(main).parameters.keys()


def test_options_are_the_keywords_of_main(monkeypatch, capsys):
    """Defaults give the types; claims that are not met give the exit status; words of a process reach it."""
    asked = {}

    def main(*, smoke: bool = False, rows: int = 3, sizes: tuple[int, ...] = (1,), data: str | None = None):
        """A study.

        Args:
            smoke: 50% of it.
            rows: Rows, of which
                there are some.
            sizes: Sizes.
            data: Folder.

        Returns:
            Claims.
        """
        asked.update(smoke=smoke, rows=rows, sizes=sizes, data=data)
        return pd.DataFrame({"met": [True, not smoke]})

    def cell(first, second):
        return {"sum": int(first) + int(second)}

    monkeypatch.setattr(sys.modules["__main__"], "__spec__", importlib.util.find_spec("studies.scale.__main__"))
    monkeypatch.setattr("sys.argv", ["study", "--rows", "5", "--sizes", "2", "3", "--smoke"])
    with pytest.raises(SystemExit) as ended:
        commands.run(main, cell=cell)
    assert (ended.value.code, asked) == (1, {"smoke": True, "rows": 5, "sizes": (2, 3), "data": None})
    monkeypatch.setattr("sys.argv", ["study", "--data", "here"])
    with pytest.raises(SystemExit) as ended:
        commands.run(main)
    assert (ended.value.code, asked) == (0, {"smoke": False, "rows": 3, "sizes": (1,), "data": "here"})
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["study", "--cell", "2", "3"])
    commands.run(main, cell=cell)
    assert json.loads(capsys.readouterr().out) == {"sum": 5}


def test_a_table_is_written_as_it_is_printed(tmp_path, capsys):
    table = pd.DataFrame({"N": [10_000, 3], "KL": [0.12345, math.nan], "met": [True, np.False_]})
    tables.report(tmp_path / "page.md", "# Claims", table, notes=["in nats", "a machine"], floats=".2g")
    text = (tmp_path / "page.md").read_text()
    rows = "| N | KL | met |\n|---|---|---|\n| 10,000 | 0.12 | yes |\n| 3 |  | **no** |"
    assert text == f"# Claims\n\n{rows}\n\n- in nats\n- a machine\n"
    assert capsys.readouterr().out.startswith(text)


def within(found, standard_error, exact):
    # A few ulps of log densities of 1e3 nats beside the Monte Carlo error.
    assert abs(found - exact) <= 4 * standard_error + 1e-11, (found, standard_error, exact)


@pytest.mark.parametrize("weight_sd", [0.01, 0.3, 3.0])  # KLs from 1e-4 to several nats
def test_importance_sampling_gives_the_exact_kl_of_gaussians(weight_sd):
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(40), rng.normal(size=(40, 3))])
    y = x @ rng.normal(size=4) + 0.5 * rng.normal(size=40)
    weight = np.exp(weight_sd * rng.normal(size=40))

    def posterior(weight):
        mean, cov = linear_regression.exact(x, y, weight, noise=0.5)
        precision, mean = np.linalg.inv(cov.numpy()), mean.numpy()
        shifted = 7.0  # an unknown normaliser
        return true_kl.Posterior(lambda w: shifted * weight.mean() - (((w - mean) @ precision) * (w - mean)).sum(1) / 2)

    found = true_kl.between(posterior(np.ones(40)), posterior(weight), np.zeros(4), draws=8000)
    full, small = (linear_regression.exact(x, y, w, noise=0.5) for w in (np.ones(40), weight))
    exact = [float(gaussian_mean.kl(*pair)) for pair in ((small, full), (full, small))]
    within(found.reverse, found.reverse_se, exact[0])
    within(found.forward, found.forward_se, exact[1])
    assert found.laplace == pytest.approx(exact[0], rel=1e-5, abs=1e-9)
    assert found.reverse_se < 0.2 * exact[0] + 1e-9


def test_importance_sampling_refuses_a_posterior_without_a_mode():
    flat = true_kl.Posterior(lambda theta: np.zeros(len(theta)))
    with pytest.raises(ArithmeticError, match="no mode"):
        true_kl.between(flat, flat, np.zeros(2))


# Each NumPy posterior against the model's own log density: equal up to one constant over all draws.


def density_of(task, draws):
    """Log joint of a Task in its own unconstrained coordinates."""
    import torch

    flat = torch.as_tensor(draws)
    return (task.log_prior(flat) + task.log_likelihood(task.data, flat).sum(1)).numpy()


@pytest.mark.parametrize("name", ["logistic", "randhie"])
def test_numpy_glm_is_the_model(name):
    case = next(case for case in glm_accuracy.CASES if case.name == name)
    task = case.task(0, None, True)
    columns = {key: column.numpy() for key, column in task.data.items()}
    draws = np.random.default_rng(0).normal(size=(6, task.dim)) * 0.3
    build = {"logistic": densities.logistic, "randhie": densities.poisson}[name]
    difference = build(**columns, weight=np.ones(task.size)).log_joint(draws) - density_of(task, draws)
    assert np.ptp(difference) < 1e-9


def test_numpy_varying_intercepts_is_the_model_with_its_intercepts_integrated_out():
    case = next(case for case in glm_accuracy.CASES if case.name == "varying_intercepts")
    task = case.task(0, None, True)
    columns = {key: column.numpy() for key, column in task.data.items()}
    groups = task.sites["z"][0]
    posterior = densities.varying_intercepts(**columns, weight=np.ones(task.size), groups=groups)
    rng = np.random.default_rng(0)
    low = rng.normal(size=(6, task.dim - groups)) * 0.3  # mu, log tau, log sigma, w: the order of the sites
    z = rng.normal(size=(6, groups))
    mean, precision = posterior.conditional(low)
    log_conditional = (np.log(precision) - precision * (z - mean) ** 2).sum(1) / 2
    draws = np.column_stack([low, z])
    assert list(task.sites) == ["mu", "tau", "sigma", "w", "z"]
    difference = posterior.log_joint(low) + log_conditional - density_of(task, draws)
    assert np.ptp(difference) < 1e-9


def test_intercepts_that_were_integrated_out_are_counted():
    rng = np.random.default_rng(1)
    p, q = rng.normal(size=3), rng.normal(size=3)

    def posterior(mean, precision):
        return true_kl.Posterior(
            lambda t: -(t**2).sum(1) / 2, lambda t: (t[:, :1] + mean, np.full((len(t), 3), precision))
        )

    found = true_kl.between(posterior(p, 2.0), posterior(q, 5.0), np.zeros(2), draws=4000)
    square = ((p - q) ** 2).sum()
    within(found.forward, found.forward_se, (3 * (2.5 - 1 - np.log(2.5)) + 5 * square) / 2)
    within(found.reverse, found.reverse_se, (3 * (0.4 - 1 - np.log(0.4)) + 2 * square) / 2)


@needs_posteriordb
@pytest.mark.parametrize("name", posteriordb.POSTERIORS)
def test_posteriordb_task_has_the_posterior_that_stan_drew(name):
    task = posteriordb.task(name, DATA)
    beta, sigma = posteriordb.reference_draws(name, DATA)
    x, y = task.data["x"].numpy(), task.data["y"].numpy()
    fitted = np.linalg.lstsq(x, y)[0]  # the posterior mean of beta under a flat prior
    error = beta.std(0) / np.sqrt(len(beta))
    # The wide prior shrinks by (sd / 1000)^2 of the coefficient, at most.
    assert (np.abs(beta.mean(0) - fitted) < 4.5 * error + 1e-3 * beta.std(0)).all()
    half_cauchy = posteriordb.POSTERIORS[name][2]
    draws = np.column_stack([beta, np.log(sigma)])[:6]
    log_prior = lambda b, s: posteriordb.log_prior(b, s, half_cauchy=half_cauchy)  # noqa: E731
    posterior = densities.normal(x, y, np.ones(len(y)), log_prior)
    assert np.ptp(posterior.log_joint(draws) - density_of(task, draws)) < 1e-6
