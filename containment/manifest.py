"""Files of attached tables that are no longer needed, and their deletion after a second proof.

Retiring an attached table writes down which files it was made of. They are somebody else's, so nothing deletes them but
:func:`delete_files`, which first compares every row that they hold with the table as it is rebuilt.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..lake.attached import attached_table
from ..lake.bitwise import differing_rows
from ..lake.errors import Conflict, Corrupt, InvalidInput, LakeletError, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from ..lake.attached import Attachment, Attachments
    from ..lake.snapshot import AttachedTable
    from ..lake.store import Store
    from ..lake.table import Table

__all__ = ["Manifest", "delete_files", "manifest_path", "read_manifest", "write_manifest"]

_FOLDER: Final = "_lakelet/retired/"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an attached table was made of when it was retired: its location, and identity and path of each file."""

    location: str
    hive: bool
    identities: tuple[str, ...]
    paths: tuple[str, ...]


def manifest_path(table_id: str) -> str:
    """Where the manifest of a rebuilt table lies."""
    return f"{_FOLDER}{table_id}.json"


def write_manifest(store: Store, table_id: str, location: str, hive: bool, table: Table) -> None:
    """Write down the files of ``table``, attached at ``location``, for the rebuilt table ``table_id``."""
    fragments = table.fragments()
    document = {
        "location": location,
        "hive": hive,
        "identities": [str(fragment.identity) for fragment in fragments],
        "paths": [fragment.path for fragment in fragments],
    }
    store.put(manifest_path(table_id), json.dumps(document, ensure_ascii=False).encode())


def read_manifest(store: Store, table_id: str, name: str) -> Manifest:
    """The manifest of a rebuilt table. Raises NotFound when there is none, Corrupt when it is damaged."""
    path = manifest_path(table_id)
    data = store.get_many([path])[0]
    if data is None:
        raise NotFound(f"no files wait to be deleted for table {name!r}: it was not attached when it was retired")
    try:
        found = json.loads(data)
        return Manifest(found["location"], found["hive"], tuple(found["identities"]), tuple(found["paths"]))
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{path} is damaged: {error}; restore it from a copy of the lake", path=path) from error


def delete_files(
    store: Store,
    table_id: str,
    table: Table,
    attachments: Attachments,
    attached: Sequence[AttachedTable],
    *,
    dry_run: bool = False,
) -> tuple[str, ...]:
    """Delete the files that ``table`` was made of before it was retired; returns their paths.

    First they are read once more and compared, bit by bit, with the table as it is rebuilt at this moment. Raises
    Conflict when files changed, came or went since, InvalidInput when the table was changed since or one of
    ``attached`` has a file of them, Corrupt when a row differs; nothing is deleted then. With ``dry_run`` nothing is
    deleted in any case.
    """
    manifest = read_manifest(store, table_id, table.name)
    _check_unshared(manifest, attachments, attached)
    attachment = attachments.open(manifest.location, manifest.hive)
    now = attached_table(table.name, attachment, table.version)
    if tuple(str(fragment.identity) for fragment in now.fragments()) != manifest.identities:
        raise Conflict(
            f"the files at {manifest.location} changed since table {table.name!r} was retired: attach them anew"
        )
    if now.num_rows != table.num_rows or not now.schema.equals(table.schema):
        raise InvalidInput(f"table {table.name!r} was changed since it was retired; its former files stay")
    _compare(now, table)
    if not dry_run:
        _remove(attachment, manifest.paths)
        store.delete([manifest_path(table_id)])
    return manifest.paths


def _check_unshared(manifest: Manifest, attachments: Attachments, attached: Sequence[AttachedTable]) -> None:
    opened = attachments.open_many([(entry.location, entry.hive) for entry in attached])
    for entry, found in zip(attached, opened, strict=True):
        if not isinstance(found, LakeletError) and {f.path for f in found.fragments} & set(manifest.paths):
            raise InvalidInput(f"the files are also those of the attached table {entry.name!r}: drop it, or keep them")


def _compare(original: Table, rebuilt: Table) -> None:
    start = 0
    theirs = iter(rebuilt.scan())
    held: list[pa.RecordBatch] = []
    for batch in original.scan():
        rows = batch.num_rows
        while sum(one.num_rows for one in held) < rows:
            held.append(next(theirs))
        ours, held = _cut(held, rows)
        for field, one, two in zip(batch.schema, batch.columns, ours.columns, strict=True):
            differing = differing_rows(_chunked(one), two)
            if differing.size:
                raise Corrupt(
                    f"table {rebuilt.name!r} is not what its former files hold: row {start + int(differing[0]):,} of "
                    f"column {field.name!r}; the files stay"
                )
        start += rows


def _chunked(array: pa.Array) -> pa.ChunkedArray:
    import pyarrow as pa

    return pa.chunked_array([array], array.type)


def _cut(batches: Sequence[pa.RecordBatch], rows: int) -> tuple[pa.Table, list[pa.RecordBatch]]:
    """The first ``rows`` rows as a table, and the rest."""
    import pyarrow as pa

    table = pa.Table.from_batches(batches)
    return table.slice(0, rows), table.slice(rows).to_batches()


def _remove(attachment: Attachment, paths: Sequence[str]) -> None:
    filesystem = attachment.listing.place.filesystem
    for path in paths:
        if filesystem is None:
            os.unlink(path)
        else:
            filesystem.rm_file(filesystem._strip_protocol(path))
