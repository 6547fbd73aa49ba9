"""Which room may import which, read from the sources: nothing is imported to find out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("lake", "containment", "vector")

# room -> rooms it may import from. A root module is a room of its own.
ALLOWED = {
    "lake": {"lake"},
    "containment": {"lake", "containment"},
    "vector": {"lake", "vector"},
    "engine": {"lake", "containment", "vector", "engine"},
    "cli": {"lake", "containment", "engine", "cli", "__init__"},
    "__main__": {"cli"},
    "__init__": {"lake", "containment", "vector", "engine"},
}


@dataclass(frozen=True)
class Arrow:
    """One import of our own: ``source`` and ``target`` are module names below the package, like ``lake.log``."""

    source: str
    target: str
    line: int
    typing_only: bool


def module_files() -> dict[str, Path]:
    """Every module of the package by its name below the package; a room's ``__init__`` has the room's name."""
    found = {path.stem: path for path in ROOT.glob("*.py")}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    """The room a module stands in: ``cli_output`` belongs to ``cli``, ``engine_base`` to ``engine``."""
    first = module.split(".", maxsplit=1)[0]
    return next((room for room in ("cli", "engine") if first.startswith(room)), first)


def typing_blocks(tree: ast.AST) -> set[int]:
    """Ids of the nodes below ``if TYPE_CHECKING:``."""
    return {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }


def arrows(module: str, path: Path, modules: dict[str, Path]) -> Iterator[Arrow]:
    """Every relative import of a module, wherever in the file it stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = typing_blocks(tree)
    package = module.split(".") if path.stem == "__init__" and module in ROOMS else module.split(".")[:-1]
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
        for alias in node.names:
            name = ".".join([*base, alias.name])
            target = name if name in modules else ".".join(base) or "__init__"
            yield Arrow(module, target, node.lineno, id(node) in typing_only)


def all_arrows() -> list[Arrow]:
    """Every import of our own in the package."""
    modules = module_files()
    return [arrow for module, path in modules.items() for arrow in arrows(module, path, modules)]


def test_something_was_read() -> None:
    modules = module_files()
    assert {"lake.errors", "lake", "containment", "__init__", "cli"} <= set(modules)
    assert len(all_arrows()) > len(ROOMS)


def test_imports_point_down() -> None:
    wrong = [
        f"{arrow.source}:{arrow.line} imports {arrow.target}"
        for arrow in all_arrows()
        if room_of(arrow.target) not in ALLOWED[room_of(arrow.source)]
    ]
    assert not wrong, wrong


def test_there_is_no_circle_not_even_through_imports_inside_functions() -> None:
    graph: dict[str, set[str]] = {module: set() for module in module_files()}
    for arrow in all_arrows():
        if not arrow.typing_only and arrow.target != arrow.source:
            graph[arrow.source].add(arrow.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


def test_the_package_imports_itself_relatively() -> None:
    wrong = []
    for module, path in module_files().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            wrong += [f"{module}: {n}" for n in names if n.split(".")[0] in {"lakelet", *ROOMS}]
    assert not wrong, wrong


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_opens_empty(room: str) -> None:
    body = ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8")).body
    assert [type(node) for node in body] == [ast.Expr], f"{room}/__init__.py holds more than its docstring"
