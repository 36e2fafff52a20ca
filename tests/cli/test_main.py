"""The command line as its users meet it: exit codes, one line a mistake, nothing computed in vain.

Real processes where a test is about one; elsewhere the command runs in this process, without seconds of imports.
"""

import contextlib
import functools
import importlib
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from bayesdd.cli import main
from bayesdd.data.columns import read
from bayesdd.data.distilled import Distilled
from bayesdd.posterior import arviz

ROOT = Path(__file__).parents[2]

TOY = '''
"""Mean of a Gaussian: theta ~ N(0, I), x_n ~ N(theta, I)."""
import time
import pyro
import pyro.distributions as dist
import torch
from bayesdd import Task

def model(x):
    theta = pyro.sample("theta", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(theta, 1.0).to_event(1), obs=x)

def visits(y):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)

def other(x):
    theta = pyro.sample("other", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(theta, 1.0).to_event(1), obs=x)

ROWS = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) + 1.0
ready = Task(model, {"x": ROWS})

def task(rows=200):
    return Task(model, {"x": ROWS[:rows]})

def counts():
    return Task(visits, {"y": torch.arange(200) % 4})

def changed():
    return Task(other, {"x": ROWS})

def needs(rows): return task(rows)
def nothing(): return None
def late(rows=200): raise RuntimeError("rows are elsewhere")
def lenient(x=None): return model(x)

class Net(torch.nn.Module):
    def forward(self, x):
        return model(x)

net = Net()
def faulty(): return torch.ones(2) @ torch.ones(3)

def slow():
    print("started", flush=True)
    time.sleep(60)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's working directory: a module, rows on disk, and a distilled set made by the command line itself."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "toy.py").write_text(TOY)
    (folder / "statistics.py").write_text(TOY)
    x = np.random.default_rng(5).normal(size=(300, 2)) - 1.0
    np.savetxt(folder / "rows.csv", x, delimiter=",", header="x[0],x[1]", comments="")
    return folder


@pytest.fixture(scope="module")
def distilled(folder):
    """What `bayesdd distill` printed, once for the whole module."""
    return run_apart(folder, "distill toy:task --data rows.csv --size 3 --seed 1 --quiet --out d.nc")


def process(folder, command):
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    line, pipe = [sys.executable, "-m", "bayesdd", *command.split()], subprocess.PIPE
    # A shell starts jobs in the background with interrupts ignored, and their children inherit that.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(line, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed)


def run(folder, command):
    """Exit code and what was printed, of a command that runs here as it would in a process of its own."""
    out, err, path, modules = io.StringIO(), io.StringIO(), list(sys.path), set(sys.modules)
    importlib.invalidate_caches()
    with contextlib.ExitStack() as here:
        for context in (contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)):
            here.enter_context(context)
        here.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default")  # pytest makes errors of warnings; Python shows them, but for these
        for hidden in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", hidden)
        try:
            code = main.main(command.split() if isinstance(command, str) else command)
        except SystemExit as ended:  # --help and --version
            code = ended.code or 0
        finally:
            sys.path[:] = path
            for name in {"toy", "clinic"} & (set(sys.modules) - modules):
                del sys.modules[name]
    return code, out.getvalue(), err.getvalue()


def run_apart(folder, command):
    """The same of a process."""
    with process(folder, command) as started:
        out, err = started.communicate(timeout=600)
    return started.returncode, out, err


def refused(folder, command, *words):
    before = sorted(os.listdir(folder))
    code, out, err = run(folder, command)
    assert (code, out) == (2, ""), (code, out, err)
    assert err.startswith("bayesdd: error: ") and err.count("\n") == 1, err
    assert all(word in err for word in words), err
    assert set(os.listdir(folder)) - set(before) <= {"__pycache__"}


def test_distill_writes_and_tells(folder, distilled):
    code, out, err = distilled
    assert code == 0 and err == "", err
    assert out.startswith("wrote d.nc: 3 weighted rows for 300\n") and len(out.splitlines()) > 1, out


def test_distilling_again_gives_the_same_file(folder, distilled):
    assert run(folder, "distill toy:task --data rows.csv --size 3 --seed 1 --quiet --out again.nc")[0] == 0
    assert (folder / "d.nc").read_bytes() == (folder / "again.nc").read_bytes()


def test_columns_are_chosen_by_the_model_or_by_name(folder, distilled):
    x = np.loadtxt(folder / "rows.csv", delimiter=",", skiprows=1, dtype=str)
    lines = [f"{a},2020-01-01,{b}" for a, b in x]
    for header, columns in (("x[0],when,x[1]", ""), ("age,when,bmi", "--columns x=age,bmi")):
        (folder / "people.csv").write_text("\n".join([header, *lines]))
        code, _, err = run(folder, f"distill toy:task --data people.csv {columns} --size 3 --seed 1 --quiet --out p.nc")
        assert code == 0, err
        assert err == ("" if columns else "bayesdd: warning: toy:model takes no columns ['when']: they are left out\n")
        assert (folder / "p.nc").read_bytes() == (folder / "d.nc").read_bytes()
    refused(folder, "distill toy:task --data people.csv --columns x=age,bmj --size 3 --out q.nc", "'bmj'", "'bmi'")


def test_settings_reach_the_distillation(folder, distilled):
    command = "distill toy:task --data rows.csv --tolerance 0.5 --init d.nc --equal-weights --device cpu --out e.nc"
    code, out, err = run(folder, command)
    assert code in (0, 1) and "wrote e.nc" in out, err
    assert len(set(Distilled.from_netcdf(folder / "e.nc").weight.tolist())) == 1
    code, out, err = run(folder, "distill toy:task --data rows.csv --size 20 --fixed-rows --quiet --out f.nc")
    assert code in (0, 1) and "20 weighted rows for 300" in out, err
    real = {tuple(row) for row in read(folder / "rows.csv")["x"].tolist()}
    assert {tuple(row) for row in Distilled.from_netcdf(folder / "f.nc").data["x"].tolist()} <= real


def test_whole_keeps_outcomes_whole(folder):
    code, out, err = run(folder, "distill toy:counts --size 3 --whole --quiet --out w.nc")
    assert code == 0, (out, err)
    assert set(Distilled.from_netcdf(folder / "w.nc").data["y"].tolist()) <= {0.0, 1.0, 2.0, 3.0}


def test_a_model_and_a_file_of_rows_are_a_task(folder, distilled):
    command = "distill {} --data rows.csv --columns x=x[0],x[1] --size 3 --seed 1 --quiet --out m.nc"
    for name in ("toy:model", "./toy.py:model", "toy:lenient", "toy.py:net"):
        assert run(folder, command.format(name))[0] == 0
        rows = Distilled.from_netcdf(folder / "m.nc").data
        np.testing.assert_array_equal(rows["x"], Distilled.from_netcdf(folder / "d.nc").data["x"])


def test_every_value_that_rows_are_asked_to_start_from_is_in_the_provenance(folder):
    assert run(folder, "distill toy:counts --size 4 --stratify y --quiet --out s.nc")[0] == 0
    assert Distilled.from_netcdf(folder / "s.nc").provenance["stratify"] == "y"
    refused(folder, "distill toy:counts --size 4 --stratify Y --quiet --out s2.nc", "'Y'", "did you mean 'y'?")


def test_sample_needs_the_model_and_the_set_only(folder, distilled):
    code, out, err = run(folder, "sample toy:ready --distilled d.nc --out p.nc --draws 500 --chains 2 --seed 3")
    assert code == 0, err
    assert out == "wrote p.nc: 2 chains of 500 draws given 3 weighted rows\n"
    theta = arviz.read(folder / "p.nc").posterior["theta"]
    assert theta.shape == (2, 500, 2)
    # The rows in rows.csv have mean -1, those in toy.py +1: the posterior's sd is 1 / sqrt(301).
    x = np.loadtxt(folder / "rows.csv", delimiter=",", skiprows=1)
    error = theta.mean(("chain", "draw")).values - x.sum(0) / 301
    assert np.abs(error).max() < 0.5 / np.sqrt(301)


def test_sample_adds_what_is_asked_for(folder, distilled):
    command = "sample toy:task --data rows.csv --distilled d.nc --corrected --log-likelihood --draws 50 --out l.nc"
    assert run(folder, command)[0] == 0
    idata = arviz.read(folder / "l.nc")
    x = np.loadtxt(folder / "rows.csv", delimiter=",", skiprows=1)
    theta = idata.posterior["theta"].values
    expected = -((x - theta[..., None, :]) ** 2).sum(-1) / 2 - np.log(2 * np.pi)
    np.testing.assert_allclose(idata.log_likelihood["x"], expected, rtol=1e-9)
    assert idata.posterior.attrs["corrected_khat"] < 0.7


def test_sample_the_full_data_by_a_named_method(folder):
    for method in ("laplace", "hmc"):
        code, out, err = run(folder, f"sample toy:task --draws 200 --chains 2 --method {method} --out full.nc")
        assert code == 0 and "given all 200 rows" in out, err
    assert arviz.read(folder / "full.nc").posterior["theta"].shape == (2, 200, 2)


def test_certify_prints_and_stores(folder, distilled):
    code, out, err = run(folder, "certify toy:task --data rows.csv --distilled d.nc --out c.nc")
    assert code == 0, (out, err)
    certificate = Distilled.from_netcdf(folder / "c.nc").certificate
    assert certificate.ok and str(certificate).splitlines()[0] in out


def test_certify_says_no(folder, distilled):
    # The set of rows.csv (mean -1) against the rows in toy.py (mean +1).
    code, out, _ = run(folder, "certify toy:task --distilled d.nc")
    assert code == 1 and out


def test_verdicts_as_json_stand_alone(folder, distilled):
    code, out, _ = run(folder, "certify toy:task --data rows.csv --distilled d.nc --json --seed 3")
    said = json.loads(out)
    assert code == 0 and said["ok"] is True and said["size"] == 3 and said["verdict"].startswith("certified")
    assert said["certificate"]["kl_reverse"] <= said["certificate"]["tolerance"] == 0.05
    code, out, err = run(folder, "distill toy:task --size 1 --fixed-rows --out j.nc --json")
    said = json.loads(out)
    assert code == 1 and said["ok"] is False and said["reasons"] and said["out"] == "j.nc"
    assert said["verdict"].startswith("NOT certified")
    # Not a terminal: whole lines with seconds, which a log file keeps.
    assert "\r" not in err and re.search(r"^bayesdd: \d+\.\d s: .*certificate$", err, flags=re.M), err
    refused(folder, "certify toy:task --distilled absent.nc --json", "absent.nc")


def test_a_report_takes_draws_that_were_made_before(folder, distilled):
    assert run(folder, "sample toy:task --data rows.csv --draws 50 --chains 2 --out full.nc")[0] == 0
    command = "report toy:task --data rows.csv --distilled d.nc --full full.nc --draws 20 --out page.html"
    assert run(folder, command)[:2] == (0, "wrote page.html\n")
    assert "<strong>Certified</strong>" in (folder / "page.html").read_text()
    refused(folder, command, "page.html", "exists already")


def test_another_model_is_refused(folder, distilled):
    refused(folder, "sample toy:changed --distilled d.nc --out q.nc", "site", "theta", "toy:other")
    # How far its posterior is off is what certify says: the rows in toy.py have another mean.
    code, out, err = run(folder, "certify toy:changed --distilled d.nc")
    assert code == 1 and out and err == "", err


def test_a_changed_model_warns_in_one_line(folder, distilled, tmp_path):
    (tmp_path / "toy.py").write_text(TOY.replace("dist.Normal(theta, 1.0)", "dist.Normal(theta, 1.5)"))
    command = "sample toy:task --distilled {} --draws 50 --chains 2 --method laplace --out q.nc"
    code, _, err = run(tmp_path, command.format(folder / "d.nc"))
    assert code == 0
    lines = [line for line in err.splitlines() if "has changed" in line]
    assert len(lines) == 1 and lines[0].startswith("bayesdd: warning: the source of toy:model")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", ["COMMAND"]),
        ("distil toy:task", ["distil", "did you mean 'distill'?"]),
        ("report toy:task --distilled absent.nc", ["--distilled absent.nc", "no such file"]),
        ("report toy:task --distilled toy.py --out r.pdf", ["r.pdf", ".html"]),
        ("report toy:task --distilled toy.py --out absent/r.html", ["absent", "does not exist"]),
        ("distill toy:task --size 3", ["--out"]),
        ("distill toy:task --size three --out d2.nc", ["--size", "three"]),
        ("distill toy:task --size 0 --out d2.nc", ["--size", "0"]),
        ("distill toy:task --tolerance -1 --out d2.nc", ["--tolerance", "-1"]),
        ("distill toy:task --tolerance nan --out d2.nc", ["--tolerance", "nan"]),
        ("distill toy:task --size 3 --device tpu --out d2.nc", ["tpu"]),
        ("distill toy:task --out d2.nc", ["--size or --tolerance"]),
        ("distill toy:task --size 3 --out absent/d2.nc", ["absent", "does not exist"]),
        ("distill toy:task --size 3 --out toy.py/d2.nc", ["not a folder"]),
        ("distill toy:task --size 3 --out d2.csv", [".nc"]),
        ("distill toy:task --size 3 --data absent.csv --out d2.nc", ["--data absent.csv", "no such file"]),
        ("sample toy:task --distilled absent.nc --out p2.nc", ["--distilled absent.nc", "no such file"]),
        ("distill toy --size 3 --out d2.nc", ["module:function", "toy"]),
        ("distill /srv/toy.py:task --size 3 --out d2.nc", ["below the working directory", "/srv/toy.py"]),
        ("distill ../toy.py:task --size 3 --out d2.nc", ["below the working directory", "../toy.py"]),
        ("distill .hidden:task --size 3 --out d2.nc", ["below the working directory"]),
        ("distill absent.py:task --size 3 --out d2.nc", ["absent.py: no such file"]),
        ("distill rows.csv/toy:task --size 3 --out d2.nc", ["rows.csv/toy: no such file"]),
    ],
)
def test_misuse_is_refused_before_anything_is_imported(command, words, folder):
    # slow() would print; a task that is never imported cannot.
    refused(folder, command.replace("toy:task", "toy:slow"), *words)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("distill absent:task --size 3 --out d2.nc", ["absent", "cannot be imported"]),
        ("distill toy:absent --size 3 --out d2.nc", ["toy", "'absent'"]),
        ("distill toy:tsk --size 3 --out d2.nc", ["did you mean toy:task?"]),
        ("distill toy:needs --size 3 --out d2.nc", ["toy:needs", "rows", "--data"]),
        ("distill toy.py:tsk --size 3 --out d2.nc", ["did you mean toy.py:task?"]),
        ("distill statistics.py:task --size 3 --out d2.nc", ["another module has this name", "statistics.py"]),
        ("distill toy:Net --data rows.csv --size 3 --out d2.nc", ["toy:Net is a class"]),
        ("distill toy:needs --data rows.csv --size 3 --out d2.nc", ["'rows'", "taken for a Pyro model of --data"]),
        ("distill toy:nothing --size 3 --out d2.nc", ["toy:nothing", "NoneType"]),
        ("distill toy:task --size 3 --init rows.csv --out d2.nc", ["rows.csv", "netCDF"]),
        ("sample toy:task --data toy.py --out p2.nc", ["toy.py", ".csv"]),
    ],
)
def test_mistakes_in_what_is_named(command, words, folder):
    refused(folder, command, *words)


def test_tables_queries_and_weights(folder):
    duckdb = pytest.importorskip("duckdb")
    (folder / "parts").mkdir()
    with duckdb.connect() as connection:
        rows = connection.read_csv(str(folder / "rows.csv"))
        for k in range(2):
            rows.limit(150, offset=150 * k).write_parquet(str(folder / "parts" / f"{k}.parquet"))
        connection.sql(f"SELECT *, 2 AS times FROM '{folder}/parts/*.parquet'").write_parquet(str(folder / "w.parquet"))
    weights = {}
    for data in ("parts", "parts/*.parquet", "SELECT * FROM 'parts/*.parquet'", "w.parquet --weight times"):
        words = data.split(" --")
        command = ["distill", "toy:task", "--data", words[0], "--size", "3", "--quiet", "--out", "t.nc"]
        command += ["--weight", "times"] if len(words) > 1 else []
        code, _, err = run(folder, command)
        assert code == 0, err
        weights[data] = float(Distilled.from_netcdf(folder / "t.nc").weight.sum())
    *once, twice = weights.values()
    assert np.allclose(once, once[0], rtol=1e-6) and twice == pytest.approx(2 * once[0], rel=0.01)
    refused(folder, "distill toy:task --data none/*.parquet --size 3 --out t2.nc", "none/*.parquet", "no such file")
    refused(folder, "distill toy:task --weight times --size 3 --out t2.nc", "--weight", "--data")


def test_an_input_is_not_replaced(folder, distilled):
    before = (folder / "d.nc").read_bytes()
    refused(folder, "sample toy:task --distilled d.nc --out d.nc", "--out d.nc", "replace")
    refused(folder, "distill toy:task --data ./d.nc --size 3 --out d.nc", "--out d.nc", "replace")
    refused(folder, "distill toy:task --data d.nc --size 3 --out d2.nc", "d.nc", "distilled set")
    assert (folder / "d.nc").read_bytes() == before


def test_a_function_that_is_no_model_and_fails_is_told_of(folder):
    code, out, err = run(folder, "distill toy:late --data rows.csv --size 3 --out d2.nc")
    assert (code, out) == (2, "")
    assert "was taken for a Pyro model of --data: without arguments it fails, rows are elsewhere)" in err


def test_a_fault_keeps_its_traceback(folder):
    code, _, err = run_apart(folder, "distill toy:faulty --size 3 --out d2.nc")
    assert code == 1 and "Traceback" in err and "faulty" in err


def test_an_interrupt_is_one_line(folder):
    with process(folder, "distill toy:slow --size 3 --out d2.nc") as started:
        assert started.stdout.readline() == "started\n"
        time.sleep(0.2)
        started.send_signal(signal.SIGINT)
        _, err = started.communicate(timeout=300)
    assert started.returncode == 130 and err == "bayesdd: interrupted; nothing was written\n"


@pytest.mark.long
def test_a_new_task_file_runs_every_example_of_the_help(tmp_path):
    for command in main.COMMANDS:
        _, out, _ = run(tmp_path, f"{command} --help")
        example = out.strip().splitlines()[-1].split()
        assert example[:2] == ["bayesdd", command]
        code, out, err = run(tmp_path, " ".join(example[1:]))
        assert code == 0 and out.startswith("wrote ") is (command != "certify"), (out, err)
    assert len((tmp_path / "clinic.py").read_text().split("def model")[1].splitlines()) < 25


def test_a_new_study_runs(tmp_path):
    code, out, _ = run(tmp_path, "new question.py --study")
    assert code == 0 and out.startswith("wrote question.py; next: python question.py")
    made = importlib.util.spec_from_file_location("question", tmp_path / "question.py")
    question = importlib.util.module_from_spec(made)
    made.loader.exec_module(question)
    table = question.main(sizes=(8,), seeds=1)
    assert list(table["ok"]) == [True] and float(table["kl_reverse"].iloc[0]) < 0.05


def test_a_new_task_file_replaces_nothing(tmp_path):
    (tmp_path / "clinic.py").write_text("mine")
    refused(tmp_path, "new clinic.py", "clinic.py", "already")
    assert (tmp_path / "clinic.py").read_text() == "mine"
    refused(tmp_path, "new clinic.txt", "clinic.txt", ".py")
    refused(tmp_path, "new my-clinic.py", "my-clinic.py")
    refused(tmp_path, "new absent/clinic.py", "absent", "does not exist")


@pytest.mark.parametrize("command", [None, *main.COMMANDS])
def test_help_shows_an_example(command, folder):
    code, out, err = run(folder, f"{command or ''} --help")
    assert (code, err) == (0, "")
    assert (
        all(name in out for name in main.COMMANDS)
        if command is None
        else f"example:\n  bayesdd {command} clinic" in out
    )


def test_version(folder):
    code, out, _ = run_apart(folder, "--version")
    assert code == 0 and out.startswith("bayesdd ")


def test_a_result_that_cannot_be_written_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def write(path):
        if path == "d.nc":
            raise OSError("disk full")
        Path(path).write_text("result")

    with pytest.raises(OSError, match=r"disk full; the result was saved as \S*d\.nc") as caught:
        main._write(write, "d.nc")
    assert Path(str(caught.value).split()[-1]).read_text() == "result"
