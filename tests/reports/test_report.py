"""The report in a browser: nothing is loaded, nothing overflows a phone; the verdict is the certificate's."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesdd
from bayesdd.data.certificate import Certificate
from bayesdd.data.predictive import PredictiveCertificate
from bayesdd.reports import sections

pytest.importorskip("matplotlib").use("Agg")
pytest.importorskip("jinja2")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
GOOD = Certificate(
    1e-3, 1e-4, 2e-3, 1e-4, 1e-3, 1e-4, 0.1, 0.05, 900.0, 10.0, 10.0, 0.0, 1000, 0.05, searches=9, modes=1
)
X = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1.0


def model(x, y):
    """A mean of two numbers, and a regression on a column whose labels need escaping."""
    theta = pyro.sample("theta", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(theta, 1.0).to_event(1), obs=x)
        pyro.sample("y", dist.Normal(slope * x[:, 0], 1.0), obs=y)


@pytest.fixture(scope="module")
def task():
    dims, coords = {"theta": ["part"], "x": ["part"]}, {"part": ["<script>alert(1)</script>", "b & c"]}
    return bayesdd.Task(model, {"x": X, "y": X[:, 0] + X[:, 1]}, dims=dims, coords=coords)


@pytest.fixture(scope="module")
def distilled(task):
    # Every tenth row with ten times its weight: close enough to draw from.
    rounds = [{"size": 20, "stage": "round 1", "what": "half-variance", "nats": 0.01}]
    provenance = {"rounds": rounds, "fingerprint": [task.rows.fingerprint()], "rows": 200}
    data = {name: column[::10] for name, column in task.data.items()}
    return bayesdd.Distilled(data, torch.full((20,), 10.0), GOOD, provenance=provenance)


@pytest.fixture(scope="module")
def page(task, distilled, tmp_path_factory):
    return bayesdd.report(task, distilled, tmp_path_factory.mktemp("page") / "report.html", draws=100)


def test_the_verdict_comes_first_and_names_are_escaped(page, task):
    text = page.read_text()
    body = text[text.index("<body>") :]
    assert re.sub(r"\s+", " ", body).index("<strong>Certified</strong>") < body.index("<table")
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "b &amp; c" in text
    assert "not those that the set was distilled from" not in text
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", text) and "url(http" not in text and "@import" not in text
    assert page.stat().st_size < 5e6


def test_every_picture_says_what_it_shows(page):
    pictures = re.findall(r"<svg[^>]*>", page.read_text())
    assert len(pictures) > 5 and all('role="img"' in one and re.search(r'aria-label="[^"]+"', one) for one in pictures)


def test_a_set_that_is_not_certified_says_what_to_do(task, distilled):
    page = sections.head(task, replace(distilled, certificate=replace(GOOD, kl_reverse=3.0)))
    assert page["state"] == "Not certified" and "kl_reverse 3" in page["reasons"][0] and "size=" in page["remedy"]


def test_predictions_have_a_report_without_parameters(task, distilled, tmp_path):
    # No posterior is drawn for these, so that verdicts, notes and equality are tested on them, in little time.
    good, bad = (
        replace(distilled, certificate=PredictiveCertificate(e, 0.001, 1.01, 0.002, 8, 0.1)) for e in (0.01, 1)
    )
    text = bayesdd.report(task, good, tmp_path / "a.html").read_text()
    assert "predictive sds" in text and "Both posteriors" not in text and "<strong>Certified</strong>" in text
    assert bayesdd.report(task, good, tmp_path / "b.html").read_text() == text
    other = task.with_data({"x": X + 0.01, "y": X[:, 0] + X[:, 1]})
    text = bayesdd.report(other, bad, tmp_path / "c.html").read_text()
    assert "<strong>Not certified</strong>" in text and "What to do" in text and "off by 1" in text
    assert "not those that the set was distilled from" in text


def test_mistakes_are_told_in_one_line_and_write_nothing(task, distilled, page, tmp_path):
    path = tmp_path / "r.html"
    with pytest.raises(bayesdd.Refusal, match="no certificate yet") as found:
        bayesdd.report(task, replace(distilled, certificate=None), path)
    assert "\n" not in str(found.value)
    with pytest.raises(FileExistsError, match="exists already"):
        bayesdd.report(task, distilled, page)
    with pytest.raises(FileNotFoundError, match="folder"):
        bayesdd.report(task, distilled, tmp_path / "nowhere" / "r.html")
    with pytest.raises(bayesdd.Refusal, match="html"):
        bayesdd.report(task, distilled, tmp_path / "r.pdf")
    other = bayesdd.Distilled({"z": np.ones(3)}, np.ones(3), GOOD)
    with pytest.raises(bayesdd.Refusal, match="'z'"):
        bayesdd.report(task, other, path)
    assert not path.exists()


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named(task, distilled, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(bayesdd.Refusal, match=package):
        bayesdd.report(task, distilled, tmp_path / "r.html")


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_loads_nothing_logs_nothing_and_shows_it_without_overflow(page, tmp_path, width):
    # The page in a frame as wide as a phone, which a window may not be; the script's answer is the document's title.
    script = """<iframe id=f src="report.html" style="width:%dpx;height:900px;border:0"></iframe><script>
    f.onload = () => { const d = f.contentDocument, w = f.contentWindow;
      const wide = [...d.querySelectorAll("body *")].filter(e => !e.closest(".scroll, pre, svg")
        && e.getBoundingClientRect().right > w.innerWidth + 1).map(e => e.tagName + "." + e.className);
      document.title = JSON.stringify({over: d.documentElement.scrollWidth - w.innerWidth, wide,
        loaded: w.performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")),
        charts: [...d.querySelectorAll("svg")].filter(e => e.getBoundingClientRect().width > 100).length}); };
    </script>"""
    shutil.copy(page, tmp_path / "report.html")
    (tmp_path / "frame.html").write_text(script % width)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr"]
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path}/profile", "--window-size=1400,1000", "--dump-dom"]
    done = subprocess.run([*command, f"file://{tmp_path}/frame.html"], capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found, done.stderr[-2000:]
    answer = json.loads(found[1])
    assert answer["over"] <= 0 and answer["wide"] == [] and answer["loaded"] == [], answer
    assert answer["charts"] == page.read_text().count("<svg")
    assert "CONSOLE" not in done.stderr, done.stderr
