"""The rooms of bayesdd and what they import: ``python tests/house.py`` prints the table, ``--write`` puts it in place.

A room is a folder of ``bayesdd/`` (of ``bayesdd/dbn/`` too). It imports only rooms that stand earlier in the list, by
their faces (``__init__.py``) or their files without ``_``. Imports in functions and under TYPE_CHECKING count.
"""

import argparse
import ast
import functools
import graphlib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
ROOMS = (
    "numerics",
    "data",
    "task",
    "density",
    "inference",
    "summaries",
    "posterior",
    "target",
    "objectives",
    "certificate",
    "distillation",
    "calibration",
    "baselines",
    "networks",
    "pinn",
    "dbn.template",
    "dbn.tables",
    "dbn.likelihood",
    "dbn.inference",
    "dbn.learning",
    "dbn.merging",
    "dbn",
    "reports",
    "cli",
)
BEGIN, END = "<!-- rooms: written by python tests/house.py --write -->\n", "<!-- end of rooms -->\n"


class Import(NamedTuple):
    """One name that a module imports: from which module, and the name."""

    importer: str
    module: str
    name: str


def modules(package: Path) -> dict[str, Path]:
    """Dotted name -> file, of every module of a package."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def statements(source: str) -> list[ast.Import | ast.ImportFrom]:
    """The imports in a module's text, wherever they stand."""
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]


def imports(package: Path) -> list[Import]:
    """All imports of a package's modules from the package itself."""
    known, found = modules(package), []
    for importer, path in known.items():
        for node in statements(path.read_text()):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package.name:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    found.append(Import(importer, whole if whole in known else node.module, alias.name))
            elif isinstance(node, ast.Import):  # import bayesdd.room
                names = [alias.name for alias in node.names if alias.name.split(".")[0] == package.name]
                found.extend(Import(importer, name, "") for name in names)
    return found


def room_of(module: str) -> str | None:
    """The room that a module stands in; None for the package itself."""
    inside = module.partition(".")[2]
    rooms = [room for room in ROOMS if inside == room or inside.startswith(f"{room}.")]
    return max(rooms, key=len) if rooms else None


def faults(package: Path) -> list[str]:
    """What breaks the rules of the house, one line each: the two files and the name."""
    known, found = modules(package), []
    for item in imports(package):
        here, there = room_of(item.importer), room_of(item.module)
        if here is None:  # the package's own face hands on whatever room
            continue
        said = f"{item.importer} imports {item.name or 'it'} from {item.module}"
        if there is None:
            found.append(f"{said}: a room does not import the package's face")
        elif here == there and known[item.module].name == "__init__.py" and known[item.importer].name != "__init__.py":
            found.append(f"{said}: a file does not import its own room's face")
        elif here != there and ROOMS.index(there) > ROOMS.index(here):
            found.append(f"{said}: {there} stands later than {here}")
        elif here != there and item.module.rpartition(".")[2].startswith("_"):
            found.append(f"{said}: a file with _ belongs to its room alone")
    return found


def circle(package: Path) -> list[str]:
    """Modules that import each other in a circle; empty where none do."""
    graph: dict[str, set[str]] = {}
    for item in imports(package):
        if room_of(item.importer) is not None and item.importer != item.module:
            graph.setdefault(item.importer, set()).add(item.module)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def table(package: Path) -> str:
    """Markdown: a line a room, what it is, and the rooms that it imports."""
    used: dict[str, set[str]] = {room: set() for room in ROOMS}
    for item in imports(package):
        here, there = room_of(item.importer), room_of(item.module)
        if here and there and here != there:
            used[here].add(there)
    lines = ["| room | what it is | imports |", "|---|---|---|"]
    for room in ROOMS:
        face = ast.get_docstring(ast.parse((package / room.replace(".", "/") / "__init__.py").read_text())) or ""
        said = " ".join(face.partition("\n\n")[0].split()).replace("|", "\\|")
        below = ", ".join(f"`{other}`" for other in ROOMS if other in used[room]) or "nothing"
        lines.append(f"| `{room}` | {said} | {below} |")
    return "\n".join(lines) + "\n"


def lines(package: Path) -> str:
    """Lines of every room, for whoever wants to know; not kept anywhere, since they change every day."""
    counts = dict.fromkeys(ROOMS, 0)
    for module, path in modules(package).items():
        if room := room_of(module):
            counts[room] += len(path.read_text().splitlines())
    return "\n".join(f"{count:6,} {room}" for room, count in counts.items()) + f"\n{sum(counts.values()):6,} all"


def main() -> None:
    """Prints the table and the lines, or writes the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into CONTRIBUTING.md")
    package, page = ROOT / "bayesdd", ROOT / "CONTRIBUTING.md"
    if parser.parse_args().write:
        before, _, rest = page.read_text().partition(BEGIN)
        page.write_text(before + BEGIN + table(package) + END + rest.partition(END)[2])
    else:
        print(table(package) + "\n" + lines(package))


if __name__ == "__main__":
    main()
