"""What the documents say: README's examples run and print what they show, every command and every link is there."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lakelet.cli import app

ROOT = Path(__file__).parents[2]
ROOMS = ("lake", "containment", "vector")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(path: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a document, as (language, text)."""
    return BLOCK.findall(path.read_text(encoding="utf-8"))


def same(shown: str, printed: str) -> bool:
    """Whether output is as shown. Blanks count as one; ``…`` stands for anything in a line, alone for any lines."""
    pattern = ""
    for line in shown.strip().splitlines():
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        else:
            words = (r".*".join(map(re.escape, word.split("…"))) for word in line.split())
            pattern += " ".join(words) + r"\n"
    text = "".join(re.sub(r"[ \t]+", " ", line).strip() + "\n" for line in printed.strip().splitlines())
    return re.fullmatch(pattern, text) is not None


def commands(text: str) -> list[tuple[str, str]]:
    """The ``$ command`` lines of a console block, each with the output shown under it."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(command, shown) for command, _, shown in (part.partition("\n") for part in parts)]


@pytest.mark.parametrize(
    ("shown", "printed", "equal"),
    [
        ("a b\n", "a    b\n", True),
        ("a …\n", "a anything at all\n", True),
        ("a\n…\nz\n", "a\nb\nc\nz\n", True),
        ("a\n…\nz\n", "a\nb\nc\ny\n", False),
        ("a b", "a c", False),
        ("a", "a\nb", False),
        ("1.2 kB", "1x2 kB", False),
    ],
)
def test_the_comparison_of_outputs_can_fail(shown: str, printed: str, equal: bool) -> None:
    assert same(shown, printed) is equal


def test_the_examples_of_the_readme_print_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONSAFEPATH": "1",
    }
    namespace: dict[str, object] = {}
    printed, ran = "", 0
    for language, text in blocks(ROOT / "README.md"):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, "README.md", "exec"), namespace)
            printed = out.getvalue()
        elif language == "text":
            assert same(text, printed), f"README shows\n{text}\nand this was printed\n{printed}"
        elif language == "console":
            for command, shown in commands(text):
                done = subprocess.run(
                    command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
                assert same(shown, done.stdout), f"$ {command}\nREADME shows\n{shown}\nprinted was\n{done.stdout}"
        ran += language in {"python", "console"}
    assert ran >= 4, "README lost its examples"


def test_every_command_is_documented() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in documents())
    names = [c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands if c.callback]
    assert names
    assert [name for name in names if f"`lakelet {name}" not in text] == []


def test_make_targets_that_documents_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {m for path in documents() for m in re.findall(r"`make ([a-z]+)`", path.read_text(encoding="utf-8"))}
    assert {"demo", "test", "lint", "bench", "clean"} <= targets
    assert named <= targets


@pytest.mark.parametrize("path", documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    broken = [
        link for link in LINK.findall(path.read_text(encoding="utf-8")) if not (path.parent / link.split()[0]).exists()
    ]
    assert not broken, broken


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in folder.glob("[0-9]*.md") if p.name not in index] == []


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    modules = [p.stem for room in ROOMS for p in (ROOT / room).glob("*.py") if p.stem != "__init__"]
    assert sorted(name for name in modules if f"`{name}`" not in text) == []


def test_what_the_architecture_names_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    cells = [cell for line in text.splitlines() if line.startswith("| ") for cell in line.split("|")[1:3]]
    named = {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)} - {"apply"}
    assert [n for n in named if not any((ROOT / room / f"{n}.py").exists() for room in ROOMS)] == []
