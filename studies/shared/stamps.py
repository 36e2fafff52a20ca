"""What a table's last line names: machine, versions, source and commit.

The source of a study is the syntax, without comments and docstrings, of the files that its imports reach. A name that a
package hands on, in its ``__init__.py`` or its ``__init__.pyi``, reaches the file that it comes from; so a study does
not depend on all of ``bayesdd`` because it imports ``bayesdd``.
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("bayesdd", "models", "studies")


def last_line(where: str, sources: Iterable[str]) -> str:
    """The last line of a table: machines and versions, hashes of the source, and the commit that writes it."""
    written = commit()
    return f"{where}; source {', '.join(sources)}" + (f"; commit {written}" if written else "")


def commit() -> str:
    """Short name of the commit, with ``+`` where files differ from it; empty where there is no git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def machines(measured: Iterable[Mapping[str, Any]]) -> str:
    """The machines that measured some cells, and how many each where there are several."""
    counts = Counter(cell["machine"] for cell in measured if "machine" in cell)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{count} cells on {name}" for name, count in counts.most_common())


def machine(threads: int) -> str:
    """One line: processor, cores, threads, versions."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "pyro-ppl", "numpy", "scipy"))
    return f"{cpu}, {os.cpu_count()} cores, {threads} thread(s) a run; Python {platform.python_version()}, {versions}"


def source_hash(module: str) -> str:
    """Hash of the syntax of all files that a module reaches, such as ``studies.lens.cell``."""
    digest = hashlib.sha256()
    for path in sorted(reached(module)):
        digest.update(f"{path.relative_to(ROOT)}\n{ast.dump(_tree(_text(path)))}\n".encode())
    return digest.hexdigest()[:12]


def reached(module: str) -> set[Path]:
    """The module's file and those of the project that it imports, directly or through others."""
    start = _file(module)
    if start is None:
        raise ValueError(f"there is no module {module} below {ROOT}")
    found, waiting = set(), [start]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _Imports(path).files
    return found


class _Imports(ast.NodeVisitor):
    """Files that a file imports, inside functions and for type checks too."""

    def __init__(self, path: Path) -> None:
        self.path, tree = path, _tree(_text(path))
        self.files: list[Path] = []
        self.packages = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
            if alias.name in FOLDERS and alias.asname is None
        }
        self.visit(tree)

    def visit_Import(self, node: ast.Import) -> None:
        # Of a plain `import bayesdd` the attributes count, below.
        names = (alias.name for alias in node.names if alias.name not in self.packages)
        self.files += [path for name in names if (path := _file(name)) is not None]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = _absolute(node, self.path)
        self.files += [path for alias in node.names for path in _origin(module, alias.name)]

    def visit_Attribute(self, node: ast.Attribute) -> None:
        names: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            names.insert(0, inner.attr)
            inner = inner.value
        if not (isinstance(inner, ast.Name) and inner.id in self.packages):
            self.generic_visit(node)
            return
        package = inner.id
        while len(names) > 1 and _file(f"{package}.{names[0]}") is not None:
            package = f"{package}.{names.pop(0)}"
        self.files += _origin(package, names[0])


def _file(module: str) -> Path | None:
    """A module's file; None where it is not the project's."""
    if module.partition(".")[0] not in FOLDERS:
        return None
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _origin(package: str, name: str) -> Iterator[Path]:
    """The file that ``from package import name`` takes the name from."""
    home, inside = _file(package), _file(f"{package}.{name}")
    if inside is not None or home is None:
        yield from () if inside is None else (inside,)
        return
    if home.name != "__init__.py":
        yield home
        return
    handed = [
        (_absolute(node, home), alias.name)
        for node in ast.walk(_tree(_text(home)))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (alias.asname or alias.name) == name
    ]
    if not handed:
        yield home
        return
    for module, original in handed:
        yield from _origin(module, original)


def _absolute(node: ast.ImportFrom, path: Path) -> str:
    """The module that names are imported from; a relative one begins at the file's folder."""
    above = path.relative_to(ROOT).parents[node.level - 1].parts if node.level else ()
    return ".".join([*above, *([node.module] if node.module else [])])


def _text(path: Path) -> str:
    """A file's text; with a package's, that of the stub that says what it loads on first use."""
    stub = path.with_suffix(".pyi")
    return path.read_text() + ("\n" + stub.read_text() if stub.is_file() else "")


@cache
def _tree(text: str) -> ast.Module:
    """The syntax tree of a file's text, docstrings left out."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str:
                node.body = node.body[1:]
    return tree
