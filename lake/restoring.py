"""Restore: a retired table's rows written out again as files of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .compaction import placed
from .edit import Edit, Rewrite, now_us
from .errors import Conflict, InvalidInput
from .moving import plain_files
from .naming import find_table
from .snapshot import OwnedTable
from .table import owned_table

if TYPE_CHECKING:
    from .snapshot import Snapshot
    from .store import Store

__all__ = ["plan_restore"]


def plan_restore(snapshot: Snapshot, store: Store, name: str) -> Edit:
    """Write the files of table ``name`` that are rebuilt from others. The edit is empty when there are none.

    The rows and their order stay. Streams one row group at a time. Raises NotFound or InvalidInput when it is no owned
    table, Corrupt or NotFound, naming table and file, when a recipe or a source is damaged or gone; nothing is changed
    then.
    """
    begun_us = now_us()
    entry = find_table(snapshot, name)
    if not isinstance(entry, OwnedTable):
        raise InvalidInput(f"table {name!r} is attached and has files of its own: there is nothing to restore")
    table = owned_table(store, entry, snapshot.version)
    rewrites: list[Rewrite] = []
    try:
        for file, fragment in zip(entry.files.values(), table.fragments(), strict=True):
            if file.recipe is not None:
                rewrites.append(Rewrite((file,), plain_files(store, entry, fragment)))
    except BaseException:
        store.delete([file.path for rewrite in rewrites for file in rewrite.after])
        raise
    edit = placed(snapshot, entry, tuple(rewrites), begun_us)
    place_again = edit.replan

    def again(newer: Snapshot) -> Edit:
        """Around what was written already; from the start when a parent's edit moved the recipes meanwhile."""
        try:
            return edit if place_again is None else place_again(newer)
        except Conflict:
            return plan_restore(newer, store, name)

    return replace(edit, replan=again) if rewrites else edit
