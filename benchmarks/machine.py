"""What a figure was measured on: versions, processor, threads, load, and the memory of this process.

Every benchmark prints :func:`describe` beside its figures, and writes its results file by :func:`write_results`.
Imported as a sibling script: put this folder on ``sys.path`` first.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

RESULTS = Path(__file__).resolve().parent / "results"
CACHE = Path(__file__).resolve().parent.parent / ".cache"
"""Where benchmarks keep the data they build; ignored by git."""

_PACKAGES = ("lakelet", "duckdb", "pyarrow", "numpy", "numba", "pandas", "hnswlib", "faiss-cpu", "usearch", "lancedb")
_PAGE_BYTES = 1 << 22


def describe(seed: int | None = None, threads: int | None = None) -> dict[str, str]:
    """Return what a reader needs to judge a figure: names to values, in the order to print them."""
    with_versions = [f"{name} {_version(name)}" for name in _PACKAGES if _version(name)]
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    facts = {
        "processor": f"{_processor()}, {os.cpu_count()} logical cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(with_versions),
        "load (1, 5, 15 min)": load,
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
    }
    if threads is not None:
        facts["threads"] = str(threads)
    if seed is not None:
        facts["seed"] = str(seed)
    return facts


def peak_rss_bytes() -> int:
    """Return the largest resident set this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def read_bytes() -> int | None:
    """Return the bytes this process has asked for through ``read`` calls, or None where the system does not count."""
    try:
        with open("/proc/self/io") as file:
            return int(next(line for line in file if line.startswith("rchar")).split()[1])
    except OSError:
        return None


class Stopwatch:
    """Times a block: ``with Stopwatch() as watch: ...`` then ``watch.seconds`` and ``watch.cpu_seconds``.

    The latter are those of all threads of this process; unlike the former they hardly change when others use the
    machine.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __enter__(self) -> Stopwatch:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start[0]
        self.cpu_seconds = time.process_time() - self._start[1]


def warm(paths: Iterable[str | os.PathLike[str]]) -> int:
    """Read the files once, so that a measurement finds them in the page cache. Returns the bytes read."""
    total = 0
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(_PAGE_BYTES):
                total += len(chunk)
    return total


def compile_kernels() -> None:
    """Have lakelet compile and cache its kernels, in another process: a run of enough rows of every common type."""
    subprocess.run([sys.executable, "-c", _COMPILE], check=True)


_COMPILE = """
import os, tempfile, duckdb, lakelet
duckdb.execute("SET enable_progress_bar = false")
with tempfile.TemporaryDirectory() as home:
    for name, step in (("whole", 1), ("half", 2)):
        os.makedirs(f"{home}/tables/{name}")
        duckdb.execute(
            "COPY (SELECT i, i::INTEGER a, i::DOUBLE b, (i / 8)::DECIMAL(15, 2) c, "
            "DATE '2000-01-01' + (i % 9999)::INT d, 'text ' || i e, i % 2 = 0 f, i::FLOAT g, "
            "make_timestamp(i * 1000) h, 'of ' || i % 7 j "
            f"FROM range(0, 2500000, {step}) r(i)) TO '{home}/tables/{name}/part-0.parquet'"
        )
    db = lakelet.connect(f"{home}/lake")
    db.attach_all(f"{home}/tables")
    assert db.containment().edges.num_rows == 1
"""


def write_results(name: str, title: str, command: str, sections: Sequence[str], facts: dict[str, str]) -> Path:
    """Write ``results/<name>.md``: title, command, machine, then the sections. Returns its path."""
    RESULTS.mkdir(exist_ok=True)
    lines = [f"# {title}", "", f"Command: `{command}`", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    path = RESULTS / f"{name}.md"
    path.write_text("\n".join(lines) + "\n\n" + "\n\n".join(section.strip() for section in sections) + "\n")
    return path


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; floats are given three significant digits."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    return "\n".join(lines)


def _cells(row: Sequence[object]) -> Iterator[str]:
    for value in row:
        if isinstance(value, float):
            yield f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{value:,}"
        else:
            yield str(value)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    for key, value in describe().items():
        print(f"{key}: {value}")
