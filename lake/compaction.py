"""Optimize: many small files, and files with deletions, into few good ones; the rows and their order stay.

Files are rewritten in runs of neighbours, so that every row keeps its place. The commit removes the files from the
first rewritten one on and adds them again in order, those that were left alone as they are. It needs the table's rows
unchanged; when somebody appended or deleted elsewhere meanwhile, the plan is made again around the files that were
written already (``Edit.replan``), which costs no reading. Only a change of the rewritten rows themselves is a Conflict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from .changes import AddFiles, Change, DataFile, RemoveFiles, TableUnchanged
from .edit import Edit, Rewrite, find_owned, now_us
from .errors import Conflict
from .layout import ParquetLayout
from .snapshot import OwnedTable, Snapshot
from .table import owned_table
from .writer import write_files

if TYPE_CHECKING:
    from .fragment import Fragment
    from .store import Store

__all__ = ["placed", "plan_optimize"]

_SMALL = 0.5
"""A file below this fraction of the layout's file size is small."""
_DELETED = 0.05
"""A file that lost this fraction of its rows is rewritten even when it has no neighbour to join."""


def plan_optimize(snapshot: Snapshot, store: Store, name: str, layout: ParquetLayout | None = None) -> Edit:
    """Rewrite the files of table ``name`` that are small or have deletions. The edit is empty when none is worth it.

    Streams one row group at a time. Raises NotFound or InvalidInput when it is no owned table, and what
    :func:`write_files` raises; nothing is changed then.
    """
    layout, begun_us = layout or ParquetLayout(), now_us()
    entry = find_owned(snapshot, name)
    table = owned_table(store, entry, snapshot.version)
    fragments = dict(zip(entry.files, table.fragments(), strict=True))
    rewrites: list[Rewrite] = []
    try:
        for run in _runs(list(entry.files.values()), layout):
            reader = pa.RecordBatchReader.from_batches(table.schema, _rows([fragments[f.file_id] for f in run]))
            files = write_files(store, entry.table_id, reader, table.schema, len(entry.schemas) - 1, layout)
            rewrites.append(Rewrite(run, files))
    except BaseException:
        store.delete([file.path for rewrite in rewrites for file in rewrite.after])
        raise
    return placed(snapshot, entry, tuple(rewrites), begun_us)


def _rows(fragments: Sequence[Fragment]) -> Iterator[pa.RecordBatch]:
    for fragment in fragments:
        for part in fragment.batches():
            yield from part.to_batches()


def _runs(files: Sequence[DataFile], layout: ParquetLayout) -> Iterator[tuple[DataFile, ...]]:
    """Neighbours to rewrite together: two small files or more, or any file that lost enough rows. Recipes stay."""
    run: list[DataFile] = []
    for file in [*files, None]:
        if file is not None and not file.recipe and (_is_small(file, layout) or _lost(file) >= _DELETED):
            run.append(file)
            continue
        if len(run) > 1 or any(_lost(member) >= _DELETED for member in run):
            yield tuple(run)
        run = []


def _is_small(file: DataFile, layout: ParquetLayout) -> bool:
    return file.num_bytes < _SMALL * layout.file_bytes


def _lost(file: DataFile) -> float:
    return file.deletion.rows / file.num_rows if file.deletion else 0.0


def placed(snapshot: Snapshot, entry: OwnedTable, rewrites: tuple[Rewrite, ...], begun_us: int) -> Edit:
    """The edit that puts each rewrite in the place of its files, whatever else the table holds by now."""
    if not rewrites:
        return Edit(())

    def again(newer: Snapshot) -> Edit:
        now = newer.tables.get(entry.table_id)
        if not isinstance(now, OwnedTable) or now.schemas != entry.schemas:
            raise Conflict(f"table {entry.name!r} was dropped or got another schema: reload and retry")
        return placed(newer, now, rewrites, begun_us)

    replaced = {file.file_id: rewrite for rewrite in rewrites for file in rewrite.before}
    for rewrite in rewrites:
        for file in rewrite.before:
            now = entry.files.get(file.file_id)
            if now is None or now.state != file.state:
                raise Conflict(f"rows of table {entry.name!r} changed while they were rewritten: retry")
    removed: list[str] = []
    added: list[DataFile] = []
    for file_id, file in entry.files.items():
        found = replaced.get(file_id)
        if not removed and found is None:
            continue
        removed.append(file_id)
        if found is None:
            added.append(file)
        elif found.before[0].file_id == file_id:
            added += found.after
    changes: list[Change] = [RemoveFiles(entry.table_id, tuple(removed), rewritten=True)]
    if added:
        changes.append(AddFiles(entry.table_id, tuple(added)))
    unchanged = TableUnchanged(entry.table_id, snapshot.version, schema=True, rows=True)
    paths = tuple(path for rewrite in rewrites for file in rewrite.after for path in file.own_paths())
    return Edit(tuple(changes), (unchanged,), replan=again, files=paths, begun_us=begun_us, rewrites=rewrites)
