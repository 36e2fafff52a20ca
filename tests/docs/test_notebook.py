"""The committed notebook runs, and says what it said when it was stored, up to the numbers."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "docs" / "quickstart.ipynb"
LARGEST = 100_000  # bytes: a picture of 80 dots an inch, no more


def outputs(notebook):
    """Words of each code cell's outputs; of a picture only that it is one."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [o["data"] for o in cell.outputs if o.output_type in ("display_data", "execute_result")]
            yield [
                ["a picture"] if "image/png" in data else re.findall(r"[a-z]{3,}", data["text/plain"]) for data in shown
            ]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's own packages
def test_it_runs_and_shows_what_is_stored(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    stored, again = nbformat.read(PATH, 4), nbformat.read(PATH, 4)
    NotebookClient(again, timeout=300, kernel_name="python3").execute()
    assert list(outputs(again)) == list(outputs(stored))
    assert sum(map(len, outputs(stored))) == 3  # certificate, rows, picture
    assert PATH.stat().st_size <= LARGEST
    assert "site-packages" not in PATH.read_text()  # a warning, and where it was run
