"""Figure 2: containment on TPC-H and some 250 tables derived from it, whose true containments are known.

    python benchmarks/containment_scale.py [FOLDER] [--scale 1] [--skip PART ...]

FOLDER is what ``scale_lake.py`` builds. lakelet runs in a fresh process, its kernels compiled before, the files in the
page cache. Parts that can be left out: ``yardstick`` (DuckDB reads and hashes every column once, then runs one
semi-join for each edge of ``reduced``), ``brute`` (an anti-join for each schema candidate, by a sample) and ``curve``
(bytes proven redundant against bytes read, beside an oracle that knows the edges).

Writes results/containment_scale.md and .svg (with the scale factor in the name when it is not 1); leaves with 1 when an
edge is false or missed or a measured target is not reached.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import duckdb
import machine
import redundancy
import scale_lake
from machine import Stopwatch, markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from scale_lake import ScaleLake

Pair = tuple[str, str]

PARTS = ("yardstick", "brute", "curve")
YARDSTICK_RATIO, BRUTE_RATIO, BYTES_RATIO, PEAK_BYTES = 2.0, 10.0, 1.5, 2 * 10**9
"""At most twice the yardstick, at least ten times faster than brute force, bytes read and peak memory at most."""

_SAMPLE_PAIRS = 150
_BUDGETS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 3 / 2)
"""Budgets of the curve's runs, as shares of the lake's bytes."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--tpch", help="folder of TPC-H's eight Parquet files; made when it is not there")
    parser.add_argument("--skip", nargs="+", choices=PARTS, default=[])
    parser.add_argument("--sample", type=int, default=_SAMPLE_PAIRS, help="pairs that brute force is timed on")
    parser.add_argument("--no-results", action="store_true", help="print the figures, write no file")
    parser.add_argument("--run", help=argparse.SUPPRESS)  # the fresh process: the tables' folder
    parser.add_argument("--budget-bytes", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(_run_here(arguments.run, arguments.budget_bytes)))
        return 0
    home = arguments.folder or scale_lake.default_home(arguments.scale)
    lake = scale_lake.build(home, scale=arguments.scale, tpch=arguments.tpch)
    machine.warm(lake.folder.glob("*/*.parquet"))
    machine.compile_kernels()
    report = _Report(lake)
    found = _run(lake.folder)
    report.add_run(found)
    if "yardstick" not in arguments.skip:
        report.add_yardstick(*_yardstick(lake, report.reduced))
    if "brute" not in arguments.skip:
        report.add_brute(*_brute(lake, arguments.sample))
    name = "containment_scale" if arguments.scale == 1 else f"containment_scale_{arguments.scale:g}"
    if "curve" not in arguments.skip:
        picture = None if arguments.no_results else machine.RESULTS / f"{name}.svg"
        report.add_curve(_curve(lake, found), redundancy.oracle(lake), picture)
    print("\n\n".join(report.sections))
    print("reached" if report.reached else "NOT reached")
    if not arguments.no_results:
        left_out = f" --skip {' '.join(arguments.skip)}" if arguments.skip else ""
        command = f"python benchmarks/containment_scale.py --scale {arguments.scale:g}{left_out}"
        facts = machine.describe(seed=lake.seed, threads=os.cpu_count())
        title = f"Containment on a lake derived from TPC-H, scale factor {arguments.scale:g}"
        machine.write_results(name, title, command, report.sections, facts)
    return 0 if report.reached else 1


class _Report:
    """Collects the figures as Markdown and whether every target was reached."""

    def __init__(self, lake: ScaleLake) -> None:
        self.reached = True
        self.reduced: list[Pair] = []
        self._lake = lake
        self._edges = lake.edges()
        self._candidates = lake.truth().num_rows
        self._seconds = 0.0
        self.sections = [
            f"{len(lake.roles)} tables, {lake.num_bytes / 1e6:,.0f} MB; {self._candidates:,} pairs whose child's "
            f"columns are the parent's; {len(self._edges):,} true edges."
        ]

    def add_run(self, found: dict[str, Any]) -> None:
        edges = {(child, parent) for child, parent in found["edges"]}
        self.reduced = [(child, parent) for child, parent in found["reduced"]]
        self._seconds = found["seconds"]
        false, missed = edges - self._edges, self._edges - edges
        self.reached &= not false and not missed
        named = {name for pair in self._edges for name in pair}
        of_edges = sum(self._lake.bytes_of(name) for name in named)
        self.sections += [
            f"Edges found: {len(edges):,}. **False: {len(false)}. Missed: {len(missed)}.**"
            + "".join(
                f"\n\n{word}: {sorted(pairs)[:10]}" for word, pairs in (("False", false), ("Missed", missed)) if pairs
            ),
            markdown_table(
                ("what", "measured", "remark"),
                [
                    ("attach, s", found["attach"], ""),
                    ("cold run, s", found["seconds"], _processor(found["cpu_seconds"])),
                    ("bytes read (columns), MB", found["bytes_read"] / 1e6, ""),
                    ("bytes asked of the system by `read`, MB", (found["asked_bytes"] or 0) / 1e6, ""),
                    ("bytes of the tables in true edges, MB", of_edges / 1e6, ""),
                    self._judged("bytes read / those", found["bytes_read"] / of_edges, at_most=BYTES_RATIO),
                    self._judged("peak memory, bytes", found["peak_bytes"], at_most=PEAK_BYTES),
                ],
            ),
            "Stage by stage:\n\n" + markdown_table(*found["stages"]),
        ]

    def add_yardstick(self, hashing: Stopwatch, joining: Stopwatch) -> None:
        ratio = self._seconds / (hashing.seconds + joining.seconds)
        self.sections.append(
            "DuckDB, the same files, the same threads:\n\n"
            + markdown_table(
                ("what", "measured", "remark"),
                [
                    (
                        "reading and hashing every column once, s",
                        hashing.seconds,
                        _processor(hashing.cpu_seconds),
                    ),
                    (
                        f"a semi-join for each of {len(self.reduced):,} edges of `reduced`, s",
                        joining.seconds,
                        _processor(joining.cpu_seconds),
                    ),
                    self._judged("cold run / their sum", ratio, at_most=YARDSTICK_RATIO),
                ],
            )
        )

    def add_brute(self, mean: float, error: float, pairs: int, wrong: int) -> None:
        total = mean * self._candidates
        self.reached &= not wrong
        self.sections.append(
            f"Anti-joining every schema candidate, from {pairs} of {self._candidates:,} drawn by chance "
            f"({wrong} of them not as the truth has it):\n\n"
            + markdown_table(
                ("what", "measured", "remark"),
                [
                    ("a pair, s", mean, f"standard error {error:.2g}"),
                    ("all pairs, extrapolated, s", total, ""),
                    self._judged("that / cold run", total / self._seconds, at_least=BRUTE_RATIO),
                ],
            )
        )

    def add_curve(
        self, measured: Sequence[tuple[int, int]], oracle: Sequence[tuple[int, int]], picture: Path | None
    ) -> None:
        if picture is not None:
            redundancy.draw(measured, oracle, picture)
        rows = [(read / 1e6, proven / 1e6, redundancy.at(oracle, read) / 1e6) for read, proven in measured]
        image = "" if picture is None else f"\n\n![bytes proven redundant against bytes read]({picture.name})"
        self.sections.append(
            "Bytes proven redundant against bytes read:\n\n"
            + markdown_table(("read, MB", "lakelet proved, MB", "the oracle proved, MB"), rows)
            + image
        )

    def _judged(
        self, what: str, value: float, *, at_most: float | None = None, at_least: float | None = None
    ) -> tuple[str, float, str]:
        holds = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
        self.reached &= holds
        bound = f"at most {at_most:,.3g}" if at_most is not None else f"at least {at_least:,.3g}"
        return what, value, bound if holds else f"**{bound}: not reached**"


def _processor(seconds: float) -> str:
    return f"{seconds:.3g} processor seconds"


def _run(folder: Path, budget_bytes: int | None = None) -> dict[str, Any]:
    command = [sys.executable, os.path.abspath(__file__), "--run", str(folder)]
    if budget_bytes is not None:
        command += ["--budget-bytes", str(budget_bytes)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _run_here(folder: str, budget_bytes: int | None) -> dict[str, Any]:
    """Attach and run in this process, which has done nothing else."""
    import lakelet

    with tempfile.TemporaryDirectory() as scratch:
        db = lakelet.connect(os.path.join(scratch, "lake"))
        with Stopwatch() as attach:
            db.attach_all(folder)
        before = machine.read_bytes()
        with Stopwatch() as watch:
            graph = db.containment(budget_bytes=budget_bytes)
            edges = graph.edges
        after = machine.read_bytes()
        stages = graph.stages
        return {
            "attach": attach.seconds,
            "seconds": watch.seconds,
            "cpu_seconds": watch.cpu_seconds,
            "peak_bytes": machine.peak_rss_bytes(),
            "asked_bytes": None if before is None or after is None else after - before,
            "bytes_read": sum(stages.column("bytes_read").to_pylist()),
            "stages": (stages.column_names, [list(row.values()) for row in stages.to_pylist()]),
            "edges": _pairs(edges),
            "reduced": _pairs(graph.reduced),
        }


def _pairs(edges: Any) -> list[Pair]:
    rows = edges.select(["child", "parent", "fraction"]).to_pylist()
    return [(row["child"], row["parent"]) for row in rows if row["fraction"] == 1.0]


def _connect() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute(
        f"SET threads = {os.cpu_count()}; SET preserve_insertion_order = false; SET enable_progress_bar = false"
    )
    return con


def _yardstick(lake: ScaleLake, reduced: Iterable[Pair]) -> tuple[Stopwatch, Stopwatch]:
    """Time reading and hashing every column of every table once, and a semi-join of each pair."""
    with _connect() as con:
        names = {name: con.sql(f"SELECT * FROM {_files(lake, name)} LIMIT 0").columns for name in lake.roles}
        with Stopwatch() as hashing:
            for name, columns in names.items():
                hashed = ", ".join(f"bit_xor(hash({column}))" for column in columns)
                con.execute(f"SELECT {hashed} FROM {_files(lake, name)}").fetchall()
        with Stopwatch() as joining:
            for child, parent in reduced:
                con.execute(_join(lake, "SEMI", names[child], child, parent)).fetchall()
    return hashing, joining


def _brute(lake: ScaleLake, sample: int) -> tuple[float, float, int, int]:
    """Mean seconds of an anti-join, its standard error, how many were run, how many contradict the truth."""
    pairs = lake.truth().to_pylist()
    drawn = random.Random(lake.seed).sample(pairs, min(sample, len(pairs)))
    seconds = []
    wrong = 0
    with _connect() as con:
        for pair in drawn:
            child, parent = pair["child"], pair["parent"]
            columns = con.sql(f"SELECT * FROM {_files(lake, child)} LIMIT 0").columns
            with Stopwatch() as watch:
                missing = con.execute(_join(lake, "ANTI", columns, child, parent)).fetchall()[0][0]
            seconds.append(watch.seconds)
            # DuckDB compares decimals and doubles as doubles: where one was written as double it cannot judge
            if "lossy" not in (lake.roles[child], lake.roles[parent]):
                wrong += (missing == 0) != (pair["common_rows"] == pair["child_rows"])
    mean = sum(seconds) / len(seconds)
    variance = sum((second - mean) ** 2 for second in seconds) / max(1, len(seconds) - 1)
    return mean, (variance / len(seconds)) ** 0.5, len(seconds), wrong


def _files(lake: ScaleLake, name: str) -> str:
    listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in lake.files(name))
    return f"read_parquet([{listed}])"


def _join(lake: ScaleLake, kind: str, columns: Iterable[str], child: str, parent: str) -> str:
    agree = " AND ".join(f"c.{column} IS NOT DISTINCT FROM p.{column}" for column in columns)
    return f"SELECT count(*) FROM {_files(lake, child)} c {kind} JOIN {_files(lake, parent)} p ON {agree}"


def _curve(lake: ScaleLake, unbounded: dict[str, Any]) -> list[tuple[int, int]]:
    """Run under growing budgets: (bytes read, bytes proven redundant) of each, and of the run without one."""
    runs = [_run(lake.folder, int(lake.num_bytes * share)) for share in _BUDGETS]
    found = [(run["bytes_read"], {(child, parent) for child, parent in run["edges"]}) for run in (*runs, unbounded)]
    return [(0, 0), *sorted((read, redundancy.redundant_bytes(lake, edges)) for read, edges in found)]


if __name__ == "__main__":
    sys.exit(main())
