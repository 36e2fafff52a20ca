"""The bar's description during a long pass."""

import io

from tqdm import tqdm

from bayesdd.distillation import progress


def test_it_says_how_far_a_pass_is_and_stops_saying(monkeypatch):
    monkeypatch.setattr(progress, "SHORT", -1.0)
    monkeypatch.setattr(progress, "EVERY", -1.0)
    written = io.StringIO()
    with tqdm(file=written, desc="name", bar_format="{desc}") as bar:
        pace = progress.Pace(bar, "name")
        for done in (1000, 2000, 4000, 1000):
            pace(done, 4000)
            if done == 2000:
                assert "name (50% of 4,000 rows, " in written.getvalue() and " a second)" in written.getvalue()
            if done == 4000:
                assert written.getvalue().rstrip().endswith("name")
    assert "name (25% of 4,000 rows" in written.getvalue()


def test_a_short_pass_is_not_worth_a_word():
    written = io.StringIO()
    with tqdm(file=written, desc="name", bar_format="{desc}") as bar:
        pace = progress.Pace(bar, "name")
        for done in range(100, 1100, 100):
            pace(done, 1000)
    assert "rows" not in written.getvalue()
