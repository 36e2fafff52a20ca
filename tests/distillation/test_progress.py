"""The description of a long pass."""

import re

from bayesdd.distillation import progress


def test_it_says_how_far_a_pass_is_and_stops_saying(monkeypatch):
    monkeypatch.setattr(progress, "SHORT", -1.0)
    monkeypatch.setattr(progress, "EVERY", -1.0)
    said = []
    pace = progress.Pace(said.append, "name")
    for done in (1000, 2000, 4000, 1000):
        pace(done, 4000)
        if done == 2000:
            assert said[-1].startswith("name (50% of 4,000 rows, ") and said[-1].endswith(" a second)")
        if done == 4000:
            assert said[-1] == "name"
    assert said[-1].startswith("name (25% of 4,000 rows")


def test_a_short_pass_is_not_reported():
    said = []
    pace = progress.Pace(said.append, "name")
    for done in range(100, 1100, 100):
        pace(done, 1000)
    assert not said


def test_a_log_file_gets_whole_lines_with_seconds(capsys):
    with progress.shown(silent=False) as bar:  # pytest's stderr is no terminal
        bar.set_postfix_str("certificate")
        for share in ("10%", "20%"):
            bar.set_description_str(f"bayesdd ({share} of 100 rows)")
        bar.set_description_str("bayesdd")
    said = capsys.readouterr().err
    assert re.fullmatch(r"bayesdd: \d+\.\d s: certificate\nbayesdd: \d+\.\d s: 10% of 100 rows\n", said)


def test_silence_is_silent(capsys):
    with progress.shown(silent=True) as bar:
        bar.set_postfix_str("certificate")
    assert capsys.readouterr().err == ""
