"""The site builds without a warning, asks nobody for anything, and shows every public name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.long
OUTSIDE = re.compile(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(?:https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_pages_ask_nobody_for_anything(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    assert [page.name for page in pages if OUTSIDE.search(page.read_text())] == []
    assert "url(http" not in (site / "style.css").read_text()


def test_formulas_are_drawn(site):
    text = "".join(page.read_text() for page in site.rglob("*.html"))
    assert text.count("<math") > 20
    assert "arithmatex" not in text and ".. math::" not in text


def test_every_public_name_is_in_the_reference(site):
    text = "".join(page.read_text() for page in (site / "reference").rglob("*.html"))
    stub = (ROOT / "bayesdd" / "__init__.pyi").read_text()
    rooms = {path.parent.name for path in (ROOT / "bayesdd").glob("*/__init__.py")}
    names = set(re.findall(r"^from \S+ import (\w+) as", stub, re.MULTILINE)) - rooms
    assert [name for name in names if not re.search(rf'id="bayesdd\.[\w.]*\b{name}"', text)] == []
