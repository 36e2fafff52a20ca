"""The house: rooms import downwards only, faces hand on functions, and CONTRIBUTING shows the rooms as they are."""

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys

import pytest

import bayesdd

spec = importlib.util.spec_from_file_location("house", f"{__file__.rpartition('/')[0]}/house.py")
house = importlib.util.module_from_spec(spec)
spec.loader.exec_module(house)
PACKAGE = house.ROOT / "bayesdd"


def test_rooms_import_downwards_only():
    assert house.faults(PACKAGE) == []
    assert house.circle(PACKAGE) == []


def test_every_folder_is_a_room_with_a_face():
    folders = {path.parent.relative_to(PACKAGE).as_posix().replace("/", ".") for path in PACKAGE.rglob("*.py")}
    assert folders - {"."} == set(house.ROOMS)
    assert {p.name for p in PACKAGE.iterdir() if p.is_file()} == {
        "__init__.py",
        "__init__.pyi",
        "__main__.py",
        "py.typed",
    }


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("numerics/pareto.py", "from bayesdd.task.task import Task", ["numerics.pareto", "task.task", "Task", "later"]),
        ("density/density.py", "    from bayesdd.inference import hmc", ["density.density", "inference", "hmc"]),
        ("task/task.py", "from bayesdd.task import Task", ["task.task", "own room's face"]),
        ("data/rows.py", "from bayesdd import Task", ["data.rows", "package's face"]),
        ("posterior/sampling.py", "from bayesdd.inference._hmc import hmc", ["posterior.sampling", "_hmc", "alone"]),
    ],
)
def test_a_wrong_import_is_named_with_both_files(tmp_path, file, line, words):
    shutil.copytree(PACKAGE, tmp_path / "bayesdd", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "bayesdd" / file
    path.write_text(path.read_text() + (f"\n\ndef late():\n{line}\n" if line.startswith(" ") else f"\n{line}\n"))
    (fault,) = house.faults(tmp_path / "bayesdd")
    assert all(word in fault for word in words), fault


def test_a_circle_is_found(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "bayesdd", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "bayesdd" / "task" / "program.py"
    path.write_text(path.read_text() + "\nif TYPE_CHECKING:\n    from bayesdd.task.task import Task\n")
    assert {"bayesdd.task.program", "bayesdd.task.task"} <= set(house.circle(tmp_path / "bayesdd"))


@pytest.mark.long
def test_public_functions_are_callable_whatever_was_imported_first():
    # A module of the same name as a function that its package hands on would take its place.
    code = """
import importlib, inspect, pathlib, pkgutil, bayesdd
for module in pkgutil.walk_packages(bayesdd.__path__, "bayesdd."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
packages = [m.name for m in pkgutil.walk_packages(bayesdd.__path__, "bayesdd.") if m.ispkg]
for name in packages:
    face = importlib.import_module(name)
    stub = pathlib.Path(face.__file__).with_suffix(".pyi")
    source = stub.read_text() if stub.exists() else inspect.getsource(face)
    handed = [line.split(" as ")[1].strip() for line in source.splitlines() if line.startswith("from ")]
    modules = [m.name for m in pkgutil.iter_modules(face.__path__)]
    assert not set(handed) & set(modules), (name, set(handed) & set(modules))
    for one in handed:
        assert not inspect.ismodule(getattr(face, one)) , (name, one)
modules = {"baselines", "dbn", "inference", "kinds", "networks", "objectives", "pinn"}
for name in bayesdd.__all__:
    assert inspect.ismodule(getattr(bayesdd, name)) if name in modules else callable(getattr(bayesdd, name)), name
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=house.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_a_first_result_waits_for_nothing_that_it_does_not_need():
    code = """
import sys, torch, bayesdd
from models import logistic_regression
bayesdd.distill(logistic_regression.task(rows=200, dim=2), 4, seed=0, progress=False)
assert not {"xarray", "scipy.optimize", "arviz", "matplotlib"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=house.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_and_the_face_do_not_wait_for_torch():
    code = "import sys, bayesdd, bayesdd.cli.main; assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=house.ROOT, check=False).returncode == 0


def test_contributing_shows_the_rooms():
    page = (house.ROOT / "CONTRIBUTING.md").read_text()
    shown = page.partition(house.BEGIN)[2].partition(house.END)[0]
    assert shown == house.table(PACKAGE), "run python tests/house.py --write"


def test_one_version():
    assert importlib.metadata.version("bayesdd") == bayesdd.__version__, "make .venv anew: make demo"
