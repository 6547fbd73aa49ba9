"""Builds the scale lake: TPC-H at a scale factor, and some 250 tables derived from it, with their true containments.

    python benchmarks/scale_lake.py [FOLDER] [--scale 1] [--seed 7] [--tpch FOLDER]

FOLDER/tables/<name>/part-<k>.parquet holds the tables, FOLDER/truth.parquet every pair whose child's columns are the
parent's, with the number of rows they share, and FOLDER/lake.json, written last, what was built. A complete folder is
left as it is. Same scale and seed, same rows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import scale_tables
import scale_truth
from machine import CACHE, Stopwatch
from rich.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scale_tables import Derived, Synthetic

SEED = 7
_MANIFEST = "lake.json"
_STEP = 1_000_003  # pairs row p with row (p * step + a third) modulo the rows: prime, so that pairs look random


@dataclass(frozen=True)
class ScaleLake:
    """A built lake: where its tables are and what it is known to hold."""

    home: Path
    scale: float
    seed: int
    num_bytes: int
    seconds: float
    roles: dict[str, str]

    @property
    def folder(self) -> Path:
        """The folder whose sub-folders are the tables."""
        return self.home / "tables"

    def truth(self) -> pa.Table:
        """Return the schema candidates: child, parent, child_rows, common_rows; contained where the two agree."""
        return pq.read_table(self.home / "truth.parquet")

    def edges(self) -> set[tuple[str, str]]:
        """Return the true (child, parent) pairs, both directions of duplicates included."""
        rows = self.truth().to_pylist()
        return {(row["child"], row["parent"]) for row in rows if row["common_rows"] == row["child_rows"]}

    def files(self, table: str) -> list[Path]:
        """Return the files of a table."""
        return sorted((self.folder / table).glob("*.parquet"))

    def bytes_of(self, table: str) -> int:
        """Return the size of a table's files."""
        return sum(file.stat().st_size for file in self.files(table))


def build(
    folder: str | os.PathLike[str],
    *,
    scale: float = 1.0,
    seed: int = SEED,
    tpch: str | os.PathLike[str] | None = None,
    memory: str = "6GB",
) -> ScaleLake:
    """Build the lake under ``folder``, or return at once when it is complete. ``tpch``: where TPC-H is or will be.

    Raises ValueError when ``folder`` holds a lake of another scale or seed.
    """
    home = Path(folder)
    done = _read_manifest(home)
    if done is not None:
        if (done.scale, done.seed) != (scale, seed):
            raise ValueError(
                f"{home} holds scale {done.scale:g}, seed {done.seed}; scale {scale:g}, seed {seed} was asked for. "
                "Name another folder or remove it."
            )
        return done
    source = generate_tpch(home / "tpch" if tpch is None else tpch, scale)
    (home / "tables").mkdir(parents=True, exist_ok=True)
    database = home / "universe.duckdb"
    database.unlink(missing_ok=True)
    progress = Progress()
    progress.disable = not progress.console.is_terminal
    with Stopwatch() as watch, duckdb.connect(str(database)) as con, progress:
        con.execute(f"SET memory_limit = '{memory}'; SET temp_directory = '{home / 'spill'}'")
        con.execute("SET enable_progress_bar = false")
        rows = {base: pq.read_metadata(source / f"{base}.parquet").num_rows for base in scale_tables.COLUMNS}
        synthetics, tables = scale_tables.derive(rows, seed)
        open_universe(con, source, progress.track(synthetics, description="synthetic rows"), rows)
        for table in progress.track(tables, description="tables"):
            _write(con, table, home / "tables" / table.name, source)
        truth = scale_truth.candidates(con, list(progress.track(tables, description="truth")))
        pq.write_table(truth, home / "truth.parquet")
    database.unlink()
    shutil.rmtree(home / "spill", ignore_errors=True)
    size = sum(file.stat().st_size for file in home.glob("tables/*/*.parquet"))
    lake = ScaleLake(home, scale, seed, size, watch.seconds, {table.name: table.role for table in tables})
    _write_manifest(lake)
    return lake


def generate_tpch(folder: str | os.PathLike[str], scale: float) -> Path:
    """Make TPC-H as eight Parquet files by tpchgen-cli, unless the folder is there."""
    target = Path(folder)
    if target.is_dir():
        return target
    beside = os.path.dirname(sys.executable)
    program = shutil.which("tpchgen-cli", path=os.pathsep.join((beside, os.environ.get("PATH", ""))))
    if program is None:
        raise FileNotFoundError("tpchgen-cli is not installed. Run: pip install 'lakelet[dev]'")
    draft = target.with_name(f"{target.name}.{os.getpid()}.draft")
    draft.mkdir(parents=True)
    subprocess.run([program, "parquet", "-s", f"{scale:g}", "--output-dir", str(draft)], check=True)
    draft.rename(target)
    return target


def open_universe(
    con: duckdb.DuckDBPyConnection,
    tpch: Path,
    synthetics: Iterable[Synthetic],
    rows: Mapping[str, int],
) -> None:
    """Define in ``con`` what tables are derived from: a view <base>, a table extra_<base>, a view all_<base> of both.

    All have the TPC-H table's columns and ``pos``; synthetic rows are numbered on from the last row of the table.
    """
    con.execute(
        # a mixing of 32 bits: multiply, shift, multiply, shift; every product stays below 2^63
        "CREATE MACRO scramble(x) AS xor(x, x >> 16); "
        "CREATE MACRO mix(pos, salt) AS scramble((scramble((pos * 2654435761 + salt * 97531) % 4294967296) "
        "* 73244475) % 4294967296)"
    )
    for base, columns in scale_tables.COLUMNS.items():
        listed = ", ".join(columns)
        path = str(tpch / f"{base}.parquet").replace("'", "''")
        con.execute(
            f"CREATE VIEW {base} AS SELECT {listed}, file_row_number AS pos "
            f"FROM read_parquet('{path}', file_row_number = true)"
        )
        con.execute(f"CREATE TABLE extra_{base} AS SELECT '' AS tag, pos, {listed} FROM {base} LIMIT 0")
        con.execute(
            f"CREATE VIEW all_{base} AS SELECT {listed}, pos FROM {base} "
            f"UNION ALL SELECT {listed}, pos FROM extra_{base}"
        )
    for made in synthetics:
        _synthesise(con, made, rows[made.base])


def _synthesise(con: duckdb.DuckDBPyConnection, made: Synthetic, rows: int) -> None:
    base = made.base
    columns = scale_tables.COLUMNS[base]
    values = ", ".join(f"{made.replace[c]} AS {c}" if c in made.replace else f"b.{c}" for c in columns)
    paired = any("d." in text for text in made.replace.values())
    other = f"JOIN {base} d ON d.pos = (b.pos * {_STEP} + {rows // 3}) % {rows}" if paired else ""
    con.execute(
        f"INSERT INTO extra_{base} SELECT '{made.tag}', "
        f"{rows} + (SELECT count(*) FROM extra_{base}) + row_number() OVER (ORDER BY b.pos) - 1, {values} "
        f"FROM (SELECT * FROM {base} WHERE {made.where}) b {other} ORDER BY b.pos"
    )


def _write(con: duckdb.DuckDBPyConnection, table: Derived, folder: Path, tpch: Path) -> None:
    folder.mkdir(exist_ok=True)
    if table.role == "base":
        _link(tpch / f"{table.base}.parquet", folder / "part-0.parquet")
        return
    for number in range(table.files):
        query = _query(table, f"pos % {table.files} = {number}" if table.files > 1 else "true")
        path = folder / f"part-{number}.parquet"
        if table.arrow_text == "string":
            target = str(path).replace("'", "''")
            con.execute(
                f"COPY ({query}) TO '{target}' "
                f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {table.row_group_rows})"
            )
        else:
            text = pa.large_string() if table.arrow_text == "large_string" else pa.dictionary(pa.int32(), pa.string())
            rows = con.sql(query).to_arrow_table()
            kept = [field.with_type(text) if pa.types.is_string(field.type) else field for field in rows.schema]
            written = pa.schema(kept)
            pq.write_table(rows.cast(written), path, compression="zstd", row_group_size=table.row_group_rows)


def _query(table: Derived, also: str) -> str:
    listed = ", ".join(table.columns)
    rows = f"SELECT * FROM {table.base} WHERE {table.where}"
    if table.synthetic:
        columns = ", ".join(scale_tables.COLUMNS[table.base])
        rows += f" UNION ALL SELECT {columns}, pos FROM extra_{table.base} WHERE tag = '{table.synthetic}'"
    written = ", ".join(
        f"{column}::{table.casts[column]} AS {name}" if column in table.casts else f"{column} AS {name}"
        for column, name in zip(table.columns, table.names, strict=True)
    )
    if table.distinct:
        rows = f"SELECT DISTINCT {listed} FROM ({rows}) ORDER BY ALL"
        return f"SELECT {written} FROM ({rows})"
    order = f"ORDER BY {table.order}" if table.order else ""
    return f"SELECT {written} FROM ({rows}) WHERE {also} {order}"


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _read_manifest(home: Path) -> ScaleLake | None:
    try:
        found = json.loads((home / _MANIFEST).read_text())
    except FileNotFoundError:
        return None
    return ScaleLake(home, **found)


def _write_manifest(lake: ScaleLake) -> None:
    kept = {key: value for key, value in vars(lake).items() if key != "home"}
    draft = lake.home / f"{_MANIFEST}.draft"
    draft.write_text(json.dumps(kept, indent=1))
    draft.replace(lake.home / _MANIFEST)


def default_home(scale: float) -> Path:
    """Return where the lake of this scale is kept unless another folder is named."""
    return CACHE / f"scale-lake-{scale:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--tpch", help="folder of TPC-H's eight Parquet files; made when it is not there")
    arguments = parser.parse_args()
    home = arguments.folder or default_home(arguments.scale)
    lake = build(home, scale=arguments.scale, seed=arguments.seed, tpch=arguments.tpch)
    print(
        f"{len(lake.roles)} tables, {lake.num_bytes / 1e6:.0f} MB in {lake.folder}, {lake.truth().num_rows:,} schema "
        f"candidates, {len(lake.edges()):,} true edges; built in {lake.seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
