"""Committed pictures are drawn from the committed tables, as these are now."""

import re

import pytest

from studies import pictures
from studies.pictures import read
from studies.shared import cells

FOLDER = cells.ROOT / "docs" / "pictures"


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_a_picture_is_of_its_table(name):
    table, _ = pictures.PICTURES[name]
    text = (FOLDER / f"{name}.svg").read_text()
    assert f"{table}.md {pictures.hash_of(table)}" in text, f"python -m studies.pictures: {table}.md has changed"
    assert len(text) <= pictures.LARGEST
    assert not re.search(r"(href|src)=\"https?:", text)


def test_every_picture_has_its_command():
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(pictures.PICTURES)


@pytest.mark.parametrize(
    ("cell", "value"), [("<1e-12 (1e-9)", 1e-12), ("-13.05 (0.05)", -13.05), ("1,000,000", 1e6), ("1611.70*", 1611.7)]
)
def test_cells_are_read_as_numbers(cell, value):
    assert read.number(cell) == value
