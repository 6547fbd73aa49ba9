"""The tree itself: sizes, packages, the wheel, and what must not be written down in it."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINES_OF_FILE = 450
LINES_OF_TEST_FILE = 600
LINES_OF_FUNCTION = 80


def tracked() -> list[Path]:
    """The files that git would commit, relative to the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    paths = (Path(name.decode()) for name in done.stdout.split(b"\0") if name)
    return [path for path in paths if (ROOT / path).is_file()]


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def package_folders() -> set[str]:
    """Folders that hold a package, by the name they are imported under."""
    inits = [path.parent for path in tracked() if path.name == "__init__.py"]
    return {".".join(("lakelet", *folder.parts)) for folder in inits}


def test_no_file_and_no_function_is_too_long() -> None:
    long = []
    for path in (p for p in tracked() if p.suffix == ".py"):
        text = (ROOT / path).read_text(encoding="utf-8")
        if text.count("\n") > (LINES_OF_TEST_FILE if path.parts[0] == "tests" else LINES_OF_FILE):
            long.append(f"{path}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LINES_OF_FUNCTION:
                    long.append(f"{path}:{node.lineno} {node.name}: {lines} lines")
    assert not long, long


def test_the_packages_listed_are_the_packages_there_are() -> None:
    listed = project()["tool"]["setuptools"]["packages"]  # type: ignore[index]
    assert sorted(listed) == sorted(package_folders())


def test_tests_are_no_package() -> None:
    assert not [path for path in tracked() if path.parts[0] == "tests" and path.name == "__init__.py"]


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in tracked() if path.parts[0] == "tests" and path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))


def test_no_addresses_of_registries_and_no_paths_of_a_machine_are_written_down() -> None:
    # Spelled in halves, so that this file does not hold them either.
    words = ["pypi" + ".org", "pythonhosted" + ".org", "registry.npm" + "js", "deb.debian" + ".org"]
    words += ["proxy.golang" + ".org", "/ro" + "ot/", "/wo" + "rk/", "/tmp" + "/dev", "/opt/" + "wheels"]
    found = []
    for path in tracked():
        text = (ROOT / path).read_bytes().decode("utf-8", "ignore")
        found += [f"{path}: {word}" for word in words if word in text]
    assert not found, found


def test_constraints_name_exact_versions_of_all_that_is_declared() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(line.count("==") == 1 and ";" not in line for line in pins)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in pins}
    meta = project()["project"]
    wanted = [*meta["dependencies"], *meta["optional-dependencies"]["dev"], *meta["optional-dependencies"]["demo"]]  # type: ignore[index]
    names = {text.split(">=")[0].split("==")[0].lower() for text in wanted}
    assert names <= pinned, names - pinned


def test_the_root_stays_what_type_checkers_resolve() -> None:
    assert (ROOT / ".typing" / "lakelet").is_symlink()
    assert (ROOT / ".typing" / "lakelet").resolve() == ROOT.resolve()


def test_the_wheel_holds_every_module_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for path in tracked():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path, follow_symlinks=False)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    held = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    rooms = {name.split(".")[1] for name in package_folders() if "." in name}
    ours = [p for p in tracked() if p.suffix == ".py" and (len(p.parts) == 1 or p.parts[0] in rooms)]
    data = {"lakelet/py.typed", "lakelet/containment/price_list.json"}
    assert held == {*data, *(f"lakelet/{p.as_posix()}" for p in ours)}
    licences = [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("licenses/LICENSE")]
    assert len(licences) == 1
