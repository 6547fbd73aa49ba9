"""Who may see a row: tenants by label, everybody, and the two words that stand for more than one tenant.

A label is an int or a str; 7 and "7" are two tenants. Inside the index each has a small number, its code.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from ..lake.errors import InvalidInput
from .background import in_turns

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ALL_TENANTS", "PUBLIC", "PUBLIC_CODE", "Everyone", "Grants", "Label", "LabelTable"]


class Everyone(enum.Enum):
    """The two words that name more than one tenant."""

    PUBLIC = "PUBLIC"
    ALL_TENANTS = "ALL_TENANTS"

    def __repr__(self) -> str:
        return f"lakelet.{self.value}"


PUBLIC: Final = Everyone.PUBLIC
"""The label of rows that every tenant sees."""
ALL_TENANTS: Final = Everyone.ALL_TENANTS
"""Searches every row, whoever may see it, rows without a tenant included: for the operator, not for tenants."""

Label: TypeAlias = "int | str | Everyone"
Grants: TypeAlias = "tuple[NDArray[np.int64], NDArray[np.int32]]"
"""Offsets int64 (n + 1,) and codes int32: the labels of n rows."""

PUBLIC_CODE: Final = 0


class LabelTable:
    """The codes of labels, in the order of their first use. Codes are never used again. Not for several writers."""

    __slots__ = ("_codes", "labels")

    def __init__(self) -> None:
        self.labels: list[Label] = [PUBLIC]
        self._codes: dict[Label, int] = {PUBLIC: PUBLIC_CODE}

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def restored(cls, labels: Sequence[Label], unused: Iterable[int]) -> LabelTable:
        """The table of these labels in the order of their codes from 1 on, less codes that are not in use."""
        table = cls()
        table.labels.extend(labels)
        left = set(unused)
        table._codes.update({label: code for code, label in enumerate(table.labels) if code not in left})
        return table

    def find(self, label: object) -> int | None:
        """The code of a label, None if it was never used; InvalidInput if it can be no label."""
        code = self._codes.get(label) if type(label) in (str, int, Everyone) else None  # type: ignore[call-overload]
        return code if code is not None else self._codes.get(checked(label))

    def code(self, label: object) -> int:
        """The code of a label, a new one if it was never used; InvalidInput if it can be no label."""
        known = self.find(label)
        if known is None:
            known = len(self.labels)
            clean = checked(label)
            self.labels.append(clean)
            self._codes[clean] = known
        return known

    def forget(self, code: int) -> None:
        """Let a label be unknown again; its code stays used. PUBLIC is never forgotten."""
        if code != PUBLIC_CODE:
            self._codes.pop(self.labels[code], None)

    def known(self) -> Iterable[tuple[Label, int]]:
        """Every label in use with its code."""
        return tuple(self._codes.items())


def checked(label: object) -> Label:
    """The label as a plain int or str, or PUBLIC; InvalidInput for anything else."""
    if label is PUBLIC:
        return PUBLIC
    if label is ALL_TENANTS:
        raise InvalidInput("ALL_TENANTS reads every row; a row is granted to tenants, or to PUBLIC for all of them")
    if isinstance(label, str):
        return str(label)
    if isinstance(label, int | np.integer) and not isinstance(label, bool):
        return int(label)
    raise InvalidInput(f"a tenant is an int or a str, not {label!r} of type {type(label).__name__}")


def parsed(tenants: Any, rows: int) -> Sequence[Sequence[Label]]:
    """The labels of each of ``rows`` rows, checked: from None, one label for all, or a sequence of labels or of lists.

    A None in the sequence is a row without a tenant. InvalidInput when the length differs or a label is none.
    """
    if tenants is None:
        return [()] * rows
    if isinstance(tenants, str | int | np.integer | Everyone):
        return [(checked(tenants),)] * rows
    unordered = isinstance(tenants, bytes | bytearray | set | frozenset | Mapping) or not isinstance(tenants, Iterable)
    if unordered or getattr(tenants, "ndim", 1) == 0:
        raise InvalidInput(
            f"tenants of type {type(tenants).__name__}: a tenant is an int or a str; give one for all rows, or a list "
            "with a label, a list of labels or None for each row"
        )
    listed: list[Any] = tenants.tolist() if hasattr(tenants, "tolist") else list(tenants)
    if len(listed) != rows:
        raise InvalidInput(f"{len(listed):,} tenants for {rows:,} vectors; give one label for all, or one entry each")
    return [_of_row(entry) for some in in_turns(listed) for entry in some]


def _of_row(entry: Any) -> Sequence[Label]:
    if type(entry) in (int, str):
        return (entry,)
    if entry is None:
        return ()
    if isinstance(entry, list | tuple | set | frozenset | np.ndarray):
        plain = entry.tolist() if isinstance(entry, np.ndarray) else entry
        return tuple(label if type(label) in (int, str) else checked(label) for label in plain)
    return (checked(entry),)


def coded(labels: Sequence[Sequence[Label]], table: LabelTable) -> Grants:
    """The codes of checked labels, each once a row; new labels get codes."""
    if not labels:
        return np.zeros(1, np.int64), np.empty(0, np.int32)
    if len(labels) == 1:
        one = np.array([table.code(label) for label in dict.fromkeys(labels[0])], np.int32)
        return np.array([0, len(one)], np.int64), one
    lengths = np.concatenate([np.fromiter(map(len, some), np.int64, len(some)) for some in in_turns(labels)])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    of: dict[Label, int] = {}
    parts = []
    for some in in_turns(labels):
        flat = list(chain.from_iterable(some))
        of.update({label: table.code(label) for label in dict.fromkeys(flat) if label not in of})
        parts.append(np.fromiter(map(of.__getitem__, flat), np.int32, len(flat)))
    codes = np.concatenate(parts)
    rows = np.repeat(np.arange(len(labels), dtype=np.int64), lengths)
    keys = np.sort((rows << 32) | codes)
    fresh = np.ones(len(keys), bool)
    fresh[1:] = keys[1:] != keys[:-1]
    if fresh.all():
        return offsets, codes
    keys = keys[fresh]
    counts = np.bincount(keys >> 32, minlength=len(labels))
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]), (keys & 0xFFFFFFFF).astype(np.int32)
