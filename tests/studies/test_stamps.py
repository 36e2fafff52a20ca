"""What a table's stamp covers: the syntax of what its study reaches, nothing else."""

import subprocess

import pytest

from studies.shared import stamps

TREE = {
    "bayesdd/__init__.py": "import lazy_loader",
    "bayesdd/__init__.pyi": """
from . import rooms as rooms
from .far import other as other
from .near import verb as verb
""",
    "bayesdd/near/__init__.py": """
from bayesdd.near._verb import verb as verb
from bayesdd.near._noun import noun as noun
""",
    "bayesdd/near/_verb.py": """
def verb():
    from bayesdd.deep import inner

    return inner.CONSTANT
""",
    "bayesdd/near/_noun.py": "noun = 1",
    "bayesdd/deep/__init__.py": "",
    "bayesdd/deep/inner.py": "CONSTANT = 2.0",
    "bayesdd/far/__init__.py": "import lazy_loader",
    "bayesdd/far/__init__.pyi": "from ._other import other as other",
    "bayesdd/far/_other.py": "other = 1",
    "bayesdd/rooms/__init__.py": "from bayesdd.rooms._only import only as only",
    "bayesdd/rooms/_only.py": "only = 1",
    "models/tasks.py": "import numpy\n\nSIZE = 1",
    "models/others.py": "SIZE = 1",
    "studies/mine/__init__.py": "from studies.mine.cell import measure",
    "studies/mine/cell.py": '''
"""A cell."""

import bayesdd
from models import tasks


def measure():
    """Measures."""
    return bayesdd.verb() + tasks.SIZE  # a comment
''',
    "studies/theirs.py": "from studies.mine.cell import measure",
}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setattr(stamps, "ROOT", tmp_path)
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def changed(tree, name, old, new):
    text = (tree / name).read_text()
    assert old in text
    (tree / name).write_text(text.replace(old, new))


def names(tree, module):
    return {str(path.relative_to(tree)) for path in stamps.reached(module)}


def test_imports_are_followed_to_where_a_name_comes_from(tree):
    of_cell = {"studies/mine/cell.py", "models/tasks.py", "bayesdd/near/_verb.py", "bayesdd/deep/inner.py"}
    assert names(tree, "studies.mine.cell") == of_cell
    assert names(tree, "studies.mine") == of_cell | {"studies/mine/__init__.py"}
    assert names(tree, "studies.theirs") == of_cell | {"studies/theirs.py"}


@pytest.mark.parametrize(
    ("line", "added"),
    [
        ("from bayesdd import other", {"bayesdd/far/_other.py"}),
        ("import bayesdd.far", {"bayesdd/far/__init__.py", "bayesdd/far/_other.py"}),
        ("from bayesdd.far import other as mine", {"bayesdd/far/_other.py"}),
        ("from bayesdd import rooms", {"bayesdd/rooms/__init__.py", "bayesdd/rooms/_only.py"}),
        ("wanted = bayesdd.rooms.only.__name__", {"bayesdd/rooms/_only.py"}),
        ("from bayesdd import nothing", {"bayesdd/__init__.py"}),
        ("import models.others as tasks", {"models/others.py"}),
    ],
)
def test_every_form_of_import_is_read(tree, line, added):
    before = names(tree, "studies.mine.cell")
    changed(tree, "studies/mine/cell.py", "import bayesdd\n", f"import bayesdd\n{line}\n")
    found = names(tree, "studies.mine.cell") - before
    assert added <= found
    assert found == added or line.endswith("nothing")  # a name of the face's own: all that the face takes in counts


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("studies/mine/cell.py", "# a comment", "# another"),
        ("studies/mine/cell.py", "Measures.", "Counts."),
        ("studies/mine/cell.py", "A cell.", "One cell."),
        ("studies/theirs.py", "measure", "measure as mine"),  # another study
        ("bayesdd/near/_noun.py", "1", "2"),  # beside what is handed on
        ("bayesdd/far/_other.py", "1", "2"),  # a room that is not reached
        ("models/others.py", "1", "2"),
    ],
)
def test_what_does_not_count_leaves_the_hash(tree, name, old, new):
    before = stamps.source_hash("studies.mine.cell")
    changed(tree, name, old, new)
    assert stamps.source_hash("studies.mine.cell") == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("studies/mine/cell.py", "verb() +", "verb() -"),
        ("models/tasks.py", "1", "2"),
        ("bayesdd/deep/inner.py", "2.0", "2.5"),
    ],
)
def test_what_counts_changes_the_hash(tree, name, old, new):
    before = stamps.source_hash("studies.mine.cell")
    changed(tree, name, old, new)
    assert stamps.source_hash("studies.mine.cell") != before


def test_a_file_that_moves_changes_the_hash(tree):
    before = stamps.source_hash("studies.mine.cell")
    (tree / "bayesdd/near/_verb.py").rename(tree / "bayesdd/near/_acts.py")
    changed(tree, "bayesdd/near/__init__.py", "_verb", "_acts")
    assert stamps.source_hash("studies.mine.cell") != before


def test_a_module_that_is_not_there_is_refused(tree):
    with pytest.raises(ValueError, match=r"no module studies\.none"):
        stamps.source_hash("studies.none")


def test_the_commit_is_named_where_there_is_one(tree):
    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *identity, *words], cwd=tree, check=True, capture_output=True)

    assert stamps.last_line("a machine", ["one", "two"]) == "a machine; source one, two"
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    clean = stamps.commit()
    assert len(clean) >= 7
    changed(tree, "models/others.py", "1", "2")
    assert stamps.commit() == f"{clean}+"
    assert stamps.last_line("a machine", ["one"]) == f"a machine; source one; commit {clean}+"


def test_a_study_reaches_what_it_measures():
    """In the project itself: the cell of scale needs densities, and no network, study or baseline."""
    found = names(stamps.ROOT, "studies.scale.cell")
    assert {"studies/scale/cell.py", "models/logistic_regression.py", "bayesdd/density/density.py"} <= found
    assert not any(name.startswith(("bayesdd/baselines/", "bayesdd/dbn/", "studies/lens/")) for name in found)
