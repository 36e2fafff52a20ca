"""Every block of the README runs, its links lead somewhere, and its tables are those that the studies wrote."""

import contextlib
import io
import re
import shlex
import sys
from pathlib import Path

import arviz  # noqa: F401  here, where its FutureWarning is the collector's and not a block's
import numpy as np
import pytest
import torch

import bayesdd
from bayesdd.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:e[+-]?\d+)?")
RESULTS = ROOT / "studies" / "results"


def blocks(language):
    return [code for found, code in BLOCKS if found == language]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What the Python blocks leave behind and print, and the folder with clinic.py that they ran in."""
    place, names = tmp_path_factory.mktemp("readme"), {}
    file, code = blocks("python")
    assert file.startswith("# clinic.py\n")
    # A twentieth of the rows: the blocks are the same, the minutes are not.
    (place / "clinic.py").write_text(file.replace("rows=20_000", "rows=1_000"))
    with (
        contextlib.chdir(place),
        contextlib.redirect_stdout(io.StringIO()) as out,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "path", [*sys.path, str(place)])
        with torch.random.fork_rng(devices=[]):
            exec(compile(code, "README.md", "exec"), names)
        yield names, out.getvalue(), place
    sys.modules.pop("clinic", None)


@pytest.mark.long
def test_python_blocks_run_and_certify(ran):
    names, printed, _ = ran
    assert len(names["distilled"]) == 12
    assert names["distilled"].certificate.ok
    assert names["new"].posterior_predictive["y"].shape[-1] == 1
    (shown,) = blocks("text")
    assert re.sub(r"\W+", " ", NUMBER.sub("", shown)).split() == re.sub(r"\W+", " ", NUMBER.sub("", printed)).split()


@pytest.mark.long
def test_means_are_near_what_made_the_rows(ran):
    w = ran[0]["idata"].posterior["w"]
    error = (w.mean(("chain", "draw")).values - [-1.0, 0.5, -0.3, 0.8]) / w.std(("chain", "draw")).values
    assert (np.abs(error) < 4).all()


@pytest.mark.long
def test_commands_run_on_the_set_of_the_python_block(ran, monkeypatch, capsys):
    names, _, folder = ran
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("bayesdd.distillation.distill", lambda *_, **__: names["distilled"])  # made above
    (commands,) = (code for code in blocks("") if code.startswith("bayesdd"))
    lines = [shlex.split(line) for line in commands.splitlines()]
    assert [words[1] for words in lines] == ["distill", "sample", "certify", "report"]
    for words in lines:
        assert main(words[1:]) == 0, words
    assert {"d.nc", "posterior.nc", "report.html"} <= {path.name for path in folder.iterdir()}
    assert "certified" in capsys.readouterr().out
    assert len(bayesdd.Distilled.from_netcdf(folder / "d.nc")) == 12


def test_two_commands_are_in_the_makefile():
    targets = (ROOT / "Makefile").read_text()
    for line in TEXT.split("## Two commands")[1].split("```")[1].split("\n"):
        if line:
            assert f"\n{line.removeprefix('make ')}:" in targets


def test_links_and_studies_exist():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) > 20
    for link in links:
        assert link.startswith("https://") or (ROOT / link).is_file(), link
    for name in re.findall(r"`studies\.([a-z_]+)`", TEXT):
        assert (ROOT / "studies" / f"{name}.py").is_file() or (ROOT / "studies" / name / "__main__.py").is_file()


def test_it_is_read_in_one_sitting():
    assert len(TEXT.split()) < 2000


def table(lines):
    """Rows of a markdown table, header -> cell."""
    split = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if line.startswith("|")]
    return [dict(zip(split[0], row, strict=True)) for row in split[2:]]


def quoted(marker):
    lines = TEXT.partition(f"<!-- {marker} -->")[2].lstrip().splitlines()
    return table(lines[: lines.index("")])


def written(name, heading=""):
    lines = (RESULTS / f"{name}.md").read_text().partition(heading)[2].lstrip().splitlines() if heading else None
    return table((lines[: lines.index("")]) if lines else (RESULTS / f"{name}.md").read_text().splitlines())


def test_accuracies_are_those_of_the_committed_table():
    rows = quoted("results")
    assert len(rows) == 4
    for row in rows:
        assert any(row.items() <= whole.items() for whole in written("glm_accuracy")), row


def test_sequences_are_those_of_the_committed_table():
    whole = written("dbn_merge", "## Linear-Gaussian, edges given, by number of slices\n")
    for row in quoted("dbn"):
        (mine,) = (w for w in whole if w["method"] == row["method"] and w["M"] in (row["rows"], "0"))
        assert all(mine[t.removeprefix("T = ")].startswith(f"{row[t]} ") for t in ("T = 2", "T = 5", "T = 10")), row


def test_errors_of_surrogates_are_those_of_the_committed_table():
    rows = quoted("pinn")
    assert len(rows) == 5
    for row in rows:
        assert any(row.items() <= whole.items() for whole in written("equations", "## Surrogates\n")), row
