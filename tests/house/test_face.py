"""The public face: lazy, complete, sorted, documented."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import lakelet
import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("lake", "containment", "vector")


def modules() -> list[str]:
    """Every importable module of the package, tests and benchmarks aside."""
    found = [p.stem for p in ROOT.glob("*.py") if not p.stem.startswith("__")]
    for room in ROOMS:
        package = importlib.import_module(f"lakelet.{room}")
        found += [f"{room}.{info.name}" for info in pkgutil.iter_modules(package.__path__)]
    return sorted(found)


def load(name: str) -> ModuleType:
    return importlib.import_module(f"lakelet.{name}")


def in_order(name: str) -> tuple[bool, bool, str]:
    """Constants, then classes, then functions."""
    return not name.isupper(), name[0].islower(), name


def test_all_is_sorted_and_importable() -> None:
    assert lakelet.__all__ == sorted(lakelet.__all__, key=in_order)
    for name in lakelet.__all__:
        found = getattr(lakelet, name)
        assert repr(found) == f"lakelet.{name}" if name.isupper() else found.__name__ == name


def test_the_lazy_table_and_the_type_checkers_view_agree_with_all() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        alias.asname: f".{node.module}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert seen == lakelet._HOME
    assert sorted(seen, key=in_order) == lakelet.__all__


def test_an_unknown_name_is_an_attribute_error_that_lists_the_face() -> None:
    with pytest.raises(AttributeError, match="connect"):
        lakelet.conect  # noqa: B018


def test_the_version_is_the_one_of_the_distribution() -> None:
    from importlib.metadata import version

    assert version("lakelet") == lakelet.__version__


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import lakelet", ["duckdb", "numba", "pyarrow", "pyspark", "numpy", "fsspec", "typer", "rich"]),
        ("from lakelet import NotFound", ["duckdb", "numba", "pyarrow", "numpy", "fsspec"]),
        ("import lakelet; lakelet.connect", ["numba", "typer", "rich"]),
        ("import lakelet.cli", ["duckdb", "numba", "pyarrow", "numpy", "fsspec"]),
    ],
)
def test_importing_loads_no_more_than_it_must(statement: str, absent: list[str]) -> None:
    code = f"import sys; {statement}; print(*sorted({{m.split('.')[0] for m in sys.modules}} & set({absent!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", modules())
def test_every_public_name_has_a_docstring(name: str) -> None:
    module = load(name)
    assert module.__doc__, f"lakelet.{name} has no docstring"
    for public in getattr(module, "__all__", ()):
        thing = getattr(module, public)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        assert inspect.getdoc(thing), f"lakelet.{name}.{public} has no docstring"
        if inspect.isclass(thing) and thing.__module__ == module.__name__:
            for key, member in vars(thing).items():
                if not key.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                    assert member.__doc__, f"lakelet.{name}.{public}.{key} has no docstring"


@pytest.mark.parametrize("name", modules())
def test_what_a_module_exports_is_there(name: str) -> None:
    module = load(name)
    assert [n for n in getattr(module, "__all__", ()) if not hasattr(module, n)] == []


@pytest.mark.parametrize("name", [n for n in modules() if ">>>" in (ROOT / f"{n.replace('.', '/')}.py").read_text()])
def test_examples_in_docstrings_hold(name: str) -> None:
    result = doctest.testmod(load(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed
