"""Copies recognised by their stored bytes: columns written alike need not be read twice to be known as equal.

Most of what is redundant in a lake was copied, or exported twice by one tool, and a tool writes equal columns alike.
Equal pages under equal types decode to equal values, row by row, so one of the tables stands for the other. Nothing is
said of columns whose bytes differ. Bytes meet as keyed digests, and only where the footers leave a copy possible.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from ..lake.table import Table

__all__ = ["COMPARED_BYTES", "Copies"]

DIGEST_BYTES: Final = 32
COMPARED_BYTES: Final = 16 * 2**20
"""Above, reading the columns once more to compare what is stored costs more than it is likely to save."""


class Copies:
    """Tables, by position in ``tables``, whose columns are stored alike. ``column_bytes``: as of Content.

    Columns of a table that come to more than ``most_bytes`` are not looked at. ``bytes_read`` counts the compressed
    bytes that were compared.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        seed: bytes,
        column_bytes: Callable[[int, Iterable[str]], int],
        most_bytes: int = COMPARED_BYTES,
    ) -> None:
        self.bytes_read = 0
        self._most_bytes = most_bytes
        self._tables = tables
        self._key = hashlib.blake2b(seed, digest_size=DIGEST_BYTES, person=b"stored copies").digest()
        self._column_bytes = column_bytes
        self._forms: dict[tuple[int, str], Hashable | None] = {}
        self._digests: dict[int, dict[str, bytes]] = {}

    def are_copies(self, tables: Sequence[tuple[int, Sequence[str]]]) -> bool:
        """Whether the named columns of all these tables are equal row by row, one name after the other, and known so.

        False says nothing. Raises what reading the files raises.
        """
        first = self._forms_of(*tables[0])
        if first is None or any(self._forms_of(*other) != first for other in tables[1:]):
            return False
        digests = self._digests_of(*tables[0])
        return all(self._digests_of(*other) == digests for other in tables[1:])

    def known(self, table: int, columns: Sequence[str]) -> tuple[bytes, ...] | None:
        """What equals that of every copy of these columns in this order; None where nothing was compared."""
        digests = self._digests.get(table, {})
        found = [digests[name] for name in columns if name in digests]
        return tuple(found) if len(found) == len(columns) else None

    def _forms_of(self, table: int, columns: Sequence[str]) -> list[Hashable] | None:
        missing = [name for name in columns if (table, name) not in self._forms]
        if missing:
            self._forms.update(self._read_forms(table, missing))
        forms = [self._forms[table, name] for name in columns]
        return None if None in forms or self._column_bytes(table, columns) > self._most_bytes else forms

    def _read_forms(self, table: int, columns: list[str]) -> dict[tuple[int, str], Hashable | None]:
        by_fragment = [
            fragment.stored_forms(columns) if fragment.is_local else None
            for fragment in self._tables[table].fragments()
        ]
        return {
            (table, name): None if None in by_fragment else tuple(forms[at] for forms in by_fragment if forms)
            for at, name in enumerate(columns)
        }

    def _digests_of(self, table: int, columns: Sequence[str]) -> list[bytes]:
        digests = self._digests.setdefault(table, {})
        missing = [name for name in columns if name not in digests]
        if missing:
            self.bytes_read += self._column_bytes(table, missing)
            fresh = [hashlib.blake2b(key=self._key, digest_size=DIGEST_BYTES) for _ in missing]
            for fragment in self._tables[table].fragments():
                for digest, parts in zip(fresh, fragment.stored_bytes(missing), strict=True):
                    for part in parts:
                        digest.update(part)
            # What was compared as forms is part of what makes a copy.
            digests.update(
                (name, digest.digest() + repr(self._forms[table, name]).encode())
                for name, digest in zip(missing, fresh, strict=True)
            )
        return [digests[name] for name in columns]
