"""Every block of the README runs: Python in one namespace from top to bottom, commands as processes."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import arviz  # noqa: F401  here, where its FutureWarning is the collector's and not a block's
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def blocks(language):
    return [code for found, code in BLOCKS if found == language]


def is_pymc(code):
    return "import pymc" in code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with clinic.py in it, as the README's reader has."""
    place = tmp_path_factory.mktemp("readme")
    first = blocks("python")[0]
    assert first.startswith("# clinic.py\n")
    # A tenth of the rows: the blocks are the same, the minutes are not.
    (place / "clinic.py").write_text(first.replace("rows=20_000", "rows=2_000"))
    return place


@pytest.fixture(scope="module")
def namespace(folder):
    """What the Python blocks leave behind, run in order in one namespace."""
    names = {}
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for i, code in enumerate(blocks("python")[1:], start=1):
                if not is_pymc(code):
                    exec(compile(code, f"README.md, Python block {i}", "exec"), names)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("clinic", None)
        os.chdir(before)
    return names


def test_python_blocks_run_and_certify(namespace):
    assert len(namespace["distilled"]) == 12
    assert namespace["distilled"].certificate.ok
    assert namespace["clean"].certificate is not None
    assert namespace["new"].posterior_predictive["y"].shape[-1] == 1


def test_union_has_the_posterior_of_both_halves(namespace):
    import bayesdd

    assert bayesdd.certify(namespace["clinic"], namespace["both"], seed=2, tolerance=0.1).ok


def test_weighted_pyro_agrees_with_sample(namespace):
    few = namespace["nuts"].get_samples()["w"].double().numpy()
    many = namespace["idata"].posterior["w"].values.reshape(-1, few.shape[1])
    # 50 draws, perhaps 25 effective ones.
    assert (np.abs(few.mean(0) - many.mean(0)) < 5 * many.std(0) / 5).all()


@pytest.mark.skipif(importlib.util.find_spec("pymc") is None, reason="PyMC is not installed")
def test_pymc_block_is_the_weighted_posterior(namespace, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (code,) = filter(is_pymc, blocks("python"))
    names = {}
    exec(compile(code, "README.md, PyMC block", "exec"), names)
    check_log_density(namespace, lambda w: names["again"].compile_logp()({"w": w}))


def test_other_tools_formula_is_the_weighted_posterior(namespace):
    """What the Stan block writes, in NumPy: weighted fractions of successes, the prior once."""
    import json

    rows = {name: np.array(value) for name, value in json.loads(json.dumps(namespace["data"])).items()}

    def log_density(w):
        eta = rows["x"] @ w
        log_likelihood = -rows["y"] * np.logaddexp(0, -eta) - (1 - rows["y"]) * np.logaddexp(0, eta)
        return rows["weight"] @ log_likelihood - w @ w / 2

    check_log_density(namespace, log_density)


def check_log_density(namespace, log_density):
    task, distilled = namespace["clinic"], namespace["distilled"]
    draws = np.random.default_rng(0).normal(size=(5, 4))
    flat = torch.as_tensor(draws)
    own = task.log_prior(flat) + task.log_likelihood(distilled.data, flat) @ distilled.weight
    assert np.ptp(np.array([log_density(w) for w in draws]) - own.numpy()) < 1e-8


def test_commands_of_the_command_line_section(folder):
    section = TEXT.split("## Command line")[1].split("\n## ")[0]
    (commands,) = re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    lines = commands.splitlines()
    assert [line.split()[1] for line in lines] == ["distill", "sample", "certify"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for line in lines:
        done = subprocess.run(shlex.split(line), cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert {"d.nc", "posterior.nc"} <= {path.name for path in folder.iterdir()}
    assert done.stdout.startswith("certified")


def test_two_commands_are_in_the_makefile():
    targets = (ROOT / "Makefile").read_text()
    for line in TEXT.split("## Two commands")[1].split("```")[1].split("\n"):
        if line:
            assert f"\n{line.removeprefix('make ')}:" in targets


def test_studies_it_names_exist():
    for name in re.findall(r"`studies\.([a-z_]+)`", TEXT):
        assert (ROOT / "studies" / f"{name}.py").is_file() or (ROOT / "studies" / name / "__main__.py").is_file()


def table(lines):
    """Rows of a markdown table, header -> cell."""
    split = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if line.startswith("|")]
    return [dict(zip(split[0], row, strict=True)) for row in split[2:]]


def test_results_are_the_committed_table():
    """Every row below the marker stands in the table that the study wrote, cell by cell; columns may be left out."""
    assert TEXT.count("<!-- results -->") == 1
    quoted = table(TEXT.partition("<!-- results -->")[2].partition("\n## ")[0].splitlines())
    written = table((ROOT / "studies" / "results" / "glm_accuracy.md").read_text().splitlines())
    assert len(quoted) == len(written) > 5
    assert all(row.items() <= whole.items() for row, whole in zip(quoted, written, strict=True))
