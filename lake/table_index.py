"""An index over a column of a table, as the log knows it: a name, a definition, and immutable segment files.

What an index is for and what its segments hold is nothing to the lake: it keeps the definition as text, keeps the
segments as long as a version names them, and tells which rows each covers.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from .store import DATA

__all__ = ["IndexSegment", "TableIndex", "segment_path"]


@dataclass(frozen=True, slots=True)
class IndexSegment:
    """One immutable file of an index, over the rows of some data files.

    ``path`` is relative to the lake; ``num_bytes`` the object's size;
    ``checksum`` is the object's SHA-256 in hex. ``files`` are the ``file_id`` of the data files that it covers, and
    ``numbers`` what each is called inside, the same in every segment of the index and never used for another; ``rows``
    counts the rows that it has of each. Files that left the table stay in it, and their rows are not seen.
    """

    path: str
    num_bytes: int
    checksum: str
    files: tuple[str, ...]
    numbers: tuple[int, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TableIndex:
    """An index over one column. ``definition`` is JSON text that only whoever made the index reads; ``next_number`` the
    lowest that no file was ever called.
    """

    index_id: str
    column: str
    definition: str
    segments: tuple[IndexSegment, ...] = ()
    next_number: int = 0

    def paths(self) -> tuple[str, ...]:
        """Every object that searching the index may need."""
        return tuple(segment.path for segment in self.segments)


def segment_path(table_id: str, index_id: str) -> str:
    """A path that no object has yet, for a new segment of an index over the table."""
    return f"{DATA}{table_id}/{index_id}.{uuid.uuid4().hex}.segment"
