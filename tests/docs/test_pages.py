"""Every code block of every page runs, in order, page by page, in a folder of its own.

A block with the title of a Python file is that file. What a `text` block shows, the block above it prints, up to the
numbers. Lines of a shell are commands of bayesdd, which run here, or name what exists: an extra, a target, a study.
"""

import contextlib
import functools
import importlib.util
import io
import re
import shlex
import sys
import textwrap
import tomllib
from pathlib import Path

import arviz  # noqa: F401  here, where its FutureWarning is the collector's and not a page's
import pytest
import torch

import bayesdd
from bayesdd.cli.main import main
from bayesdd.networks import purpose, row_search
from bayesdd.task.provenance import identity

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
FENCE = re.compile(r"^( *)```(\w*)(.*)\n((?:.*\n)*?)\1```$", re.MULTILINE)
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:e[+-]?\d+)?")

LESS = {  # what is written for a reader, and what is computed here: the blocks are the same, the minutes are not
    "rows=20_000": "rows=400",
    "size=16": "size=6",
    "size=3000": "size=300",
    "size=(3000, 2)": "size=(300, 2)",
    '"u": u}, seed=0)': '"u": u}, seed=0, hidden=(6,), modes=2, steps=30)',
    "held=0.08, steps=60)": "held=0.08, steps=2)",
}
CHEAPER = re.compile("|".join(map(re.escape, LESS)))

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("pages")]  # pages share what they distil


def blocks(page):
    """(language, title, code) of a page's blocks, with less to compute."""
    for _, language, rest, code in FENCE.findall(page.read_text()):
        title = re.search(r'title="(.*?)"', rest)
        yield language, title and title[1], CHEAPER.sub(lambda m: LESS[m[0]], textwrap.dedent(code))


@pytest.fixture(scope="module")
def distilled_before():
    return {}


@pytest.fixture
def quick(monkeypatch, distilled_before):
    """Pages that distil the same task with the same settings get the same set; networks are searched less."""
    distill = bayesdd.distill

    def once(target, *sizes, **settings):
        if not isinstance(target, bayesdd.Task) or settings.keys() - {"size", "tolerance", "seed", "progress"}:
            return distill(target, *sizes, **settings)
        asked = (identity([target]), sizes, tuple(sorted(settings.items())))
        if asked not in distilled_before:
            distilled_before[asked] = distill(target, *sizes, **settings)
        return distilled_before[asked]

    monkeypatch.setattr(bayesdd, "distill", once)
    monkeypatch.setattr(purpose, "modes", functools.partial(purpose.modes, searches=1, steps=20))
    monkeypatch.setattr(row_search, "JUDGED", 20)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory whose modules can be imported and are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT / "docs")) for page in PAGES])
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:pinn.fit:bayesdd.pinn.FitWarning")  # thirty steps of six units solve no equation
@pytest.mark.filterwarnings(
    "ignore:not certified.*(in doubt|of the range|target's predictive):bayesdd.CertificateWarning"
)
@pytest.mark.filterwarnings("ignore:.*values share a step:bayesdd.DataNote")  # real visits, of which the page tells
def test_blocks_run(page, folder, quick):
    names, printed = {}, ""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for number, (language, title, code) in enumerate(blocks(page), start=1):
            place = f"{page.name}, block {number}"
            if title:
                (folder / title).write_text(code)
                importlib.invalidate_caches()
            elif language == "python" and not missing(code):
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(compile(code, place, "exec"), names)
                printed = out.getvalue()
            elif language == "text":
                assert shape(code) == shape(printed), place
            elif language == "sh":
                for line in code.splitlines():
                    command(shlex.split(line, comments=True))
            else:
                assert language in {"python", "stan", "r"}, f"{place}: what is {language!r}?"


def missing(code):
    """Whether a block is for a tool that is not installed here."""
    tools = re.findall(r"^import (pymc|bambi|cmdstanpy)\b", code, re.MULTILINE)
    return any(importlib.util.find_spec(tool) is None for tool in tools)


def shape(text):
    """Words of an output, whatever the numbers and the spaces."""
    return NUMBER.sub("#", text).split()


def command(words):
    """Runs a command of bayesdd; of another one, what it names exists."""
    match words:
        case ["bayesdd", *rest]:
            with contextlib.redirect_stdout(io.StringIO()):
                assert main([*rest, "--quiet"] if rest[0] == "distill" else rest) == 0, words
        case ["torchrun", *_, "-m", "bayesdd", "distill", task, "--data", _, "--size", _, "--out", _]:
            assert task == "clinic:task"
        case ["pip", "install", *_, what] if "[" in what:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert what.partition("[")[2].rstrip("]") in extras
        case ["make", target]:
            assert f"\n{target}:" in (ROOT / "Makefile").read_text()
        case ["python" | ".venv/bin/python", "-m", module]:
            assert importlib.util.find_spec(module) is not None
        case _:
            assert words[:2] in (["pip", "install"], ["git", "clone"]) or words[:1] in ([], ["cd"]), words


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT / "docs")) for page in PAGES])
def test_studies_that_are_named_exist(page):
    for name in re.findall(r"`?studies\.([a-z_]+)", page.read_text()):
        assert importlib.util.find_spec(f"studies.{name}") is not None, name


def test_what_is_made_cheaper_is_on_a_page():
    text = "".join(page.read_text() for page in PAGES)
    assert all(written in text for written in LESS)
