"""The floor: versions below it, and the log entries up to it, may be gone.

Each raise creates an object of its own below ``_lakelet/floor/`` and the highest one counts: two processes that expire
at once, one of them slowly, can therefore never lower it. Why this matters: a writer that slept for longer than the
retention may find its slot free only because the entry that stood there was deleted.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .store import Store

__all__ = ["FLOOR", "raise_floor", "read_floor"]

FLOOR: Final = "_lakelet/floor/"
_NAME: Final = re.compile(re.escape(FLOOR) + r"(\d{20})")


def read_floor(store: Store) -> int:
    """The oldest version that is kept; log entries up to it may be gone. 0: nothing was ever expired."""
    found = (_NAME.fullmatch(info.path) for info in store.list(FLOOR))
    return max((int(match[1]) for match in found if match), default=0)


def raise_floor(store: Store, version: int) -> int:
    """Raise the floor to ``version`` unless it is higher already. Returns the floor that holds afterwards."""
    if version > 0:
        store.create(f"{FLOOR}{version:020d}", b"floor\n")
    floor = max(version, read_floor(store))
    lower = [info.path for info in store.list(FLOOR) if (match := _NAME.fullmatch(info.path)) and int(match[1]) < floor]
    store.delete(lower)
    return floor
