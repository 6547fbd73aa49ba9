"""One slot of the log: taking it, and finding out whether it was taken when no answer came."""

from __future__ import annotations

import random
import time
from itertools import count
from typing import TYPE_CHECKING, Final

from .entry import Entry, log_path
from .errors import CommitUnknown, LakeletError, Unavailable
from .floor import read_floor
from .limits import COMMIT_RETRY_SECONDS
from .replay import read_slot

if TYPE_CHECKING:
    from .store import Store

__all__ = ["pause", "take_slot"]

_BACKOFF_SECONDS: Final = (0.001, 0.05)
"""The jittered pause after a lost race: the first one at most, and any later one at most."""


def take_slot(store: Store, entry: Entry, data: bytes) -> bool:
    """Whether the slot of ``entry`` is ours now. False: another writer has it, and nothing of ours was written.

    Lost answers are settled by reading the slot back and comparing commit ids. Raises Unavailable when the store
    refused and nothing was written, CommitUnknown when that cannot be told.
    """
    path = log_path(entry.version)
    deadline = time.monotonic() + COMMIT_RETRY_SECONDS
    in_doubt: Exception | None = None
    for attempt in count(1):
        refused: Exception | None = None
        try:
            if store.create(path, data):
                _check_floor(store, entry)
                return True
        except CommitUnknown as error:
            in_doubt = error
        except Unavailable as error:
            refused = error
        except Exception as error:  # whatever a store raises, the put may have happened
            in_doubt = error
        try:
            found = read_slot(store, entry.version)
        except Unavailable as error:
            found = None
            if refused is None:
                in_doubt = in_doubt or error
        if found is not None:
            # taken: by ours, if an earlier try of ours or of the SDK got through without an answer
            if found.commit_ids != entry.commit_ids:
                return False
            _check_floor(store, entry)
            return True
        if refused is not None and in_doubt is None:
            raise refused
        _check_floor(store, entry)  # taken, yet not there: perhaps it was expired long ago
        if time.monotonic() > deadline:
            break
        pause(attempt)
    raise CommitUnknown(
        f"no answer to committing version {entry.version} ({in_doubt or 'it is taken, but cannot be read'}): look in "
        f"history() for the commit ids {sorted(entry.commit_ids)} before retrying"
    ) from in_doubt


def _check_floor(store: Store, entry: Entry) -> None:
    """A slot at or below the floor may have been free only because its entry was expired."""
    try:
        floor = read_floor(store)
    except LakeletError as error:
        raise CommitUnknown(
            f"version {entry.version} was written, but whether it was expired meanwhile cannot be told: {error}"
        ) from error
    if entry.version <= floor:
        raise CommitUnknown(
            f"version {entry.version} was expired (the floor is {floor}) while this commit was on its way: "
            "reload the lake and look whether its changes are there"
        )


def pause(attempt: int) -> None:
    """Wait a random while after so many failures, so that those who race do not stay in step."""
    first, most = _BACKOFF_SECONDS
    time.sleep(random.uniform(0, min(most, first * 2 ** min(attempt, 16))))
