"""What a condition over attributes comes to once its parameters are known: sets of keys by attribute.

All are hashable values, so that the rows that one finds can be kept for the next search with an equal one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from ..lake.predicate import Predicate
    from .intervals import Intervals

__all__ = ["ALWAYS", "NEVER", "Both", "Bound", "Either", "Holds", "InKeys", "IsNull", "Judged"]


@dataclass(frozen=True, slots=True)
class InKeys:
    """Rows whose value is not NULL and lies in the intervals."""

    attribute: str
    intervals: Intervals


@dataclass(frozen=True, slots=True)
class IsNull:
    """Rows without a value; or with one, if not ``wanted``."""

    attribute: str
    wanted: bool


@dataclass(frozen=True, slots=True)
class Holds:
    """Rows whose list, which is not NULL, holds ``every`` text or any of them; or does not, if ``denied``."""

    attribute: str
    texts: tuple[str, ...]
    every: bool
    denied: bool


@dataclass(frozen=True, slots=True)
class Both:
    """Rows that all parts name; every row, if there are none."""

    parts: tuple[Bound, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """Rows that some part names; no row, if there are none."""

    parts: tuple[Bound, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows that DuckDB finds by the condition; equal to others of the same text and values, which ``told`` tells."""

    predicate: Predicate = field(compare=False)
    told: object


Bound: TypeAlias = InKeys | IsNull | Holds | Both | Either | Judged
NEVER: Final = Either(())
ALWAYS: Final = Both(())
