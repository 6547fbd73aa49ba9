"""What ``lakelet audit`` does: find what is redundant below a path, without a lake and without changing anything there.

What was proven is kept in a state folder of its own, by the identity of the files, so that a run under a budget goes on
where the last one stopped, and a run after a change costs what changed. Only that folder is written to.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .lake.errors import Corrupt, InvalidInput, LakeletError, NotFound

if TYPE_CHECKING:
    from .containment.graph import Graph
    from .lake.local_store import LocalStore
    from .lake.progress import Progress

__all__ = ["Audit", "byte_count", "run_audit", "state_folder"]

SEED_BYTES = 32
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_UNITS |= {f"{unit}I": 1024**power for power, unit in enumerate("KMGTP", start=1)}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*((?:[KMGTP]I?)?)B?", re.IGNORECASE)


@dataclass(frozen=True)
class Audit:
    """The containment graph of the tables below ``path``, and (location, reason) of all that is no table."""

    path: str
    graph: Graph
    rejected: tuple[tuple[str, str], ...]


def byte_count(text: str) -> int:
    """Bytes from ``10GB``, ``1.5 TiB`` or a plain number; units are powers of 1,000, with an i powers of 1,024.

    >>> byte_count("10GB"), byte_count("1.5 KiB"), byte_count("42")
    (10000000000, 1536, 42)
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(f"found the size {text!r}; expected a number with a unit, such as 500MB, 10GB or 1TiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def state_folder(path: str) -> str:
    """The folder that keeps what is known of ``path``, below the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    key = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return os.path.join(cache, "lakelet", "audit", key)


def run_audit(
    path: str,
    *,
    state: str | None = None,
    budget_bytes: int | None = None,
    min_fraction: float = 1.0,
    progress: Progress | None = None,
) -> Audit:
    """Find what is redundant below ``path``, a folder or URI, reading at most ``budget_bytes`` of columns in this run.

    ``state`` is the folder to keep results in; None is :func:`state_folder`. Raises NotFound when there is no such
    folder, InvalidInput when ``state`` lies inside it, Unavailable when the state cannot be written.
    """
    from .containment.finder import find
    from .containment.verdicts import VerdictStore
    from .lake.attached import Attachments, attached_table
    from .lake.discovery import discover
    from .lake.limits import CONTAINMENT_MEMORY_BYTES
    from .lake.listing import place_of
    from .lake.local_store import LocalStore
    from .lake.progress import shown

    where = path if "://" in path else os.path.abspath(path)
    folder = os.path.abspath(state or state_folder(where))
    if "://" not in where and os.path.commonpath([folder, where]) == where:
        raise InvalidInput(f"the state folder {folder} lies inside {where}, which audit must not change; move --state")
    with shown(progress) as report:
        attachments = Attachments()
        found = discover(place_of(where, None), attachments.footers)
        attachments.adopt(table.listing for table in found.tables)
        opened = attachments.open_many([(table.location, table.hive) for table in found.tables], report)
        rejected = [(r.location, r.reason) for r in found.rejected]
        tables = []
        for table, attachment in zip(found.tables, opened, strict=True):
            if isinstance(attachment, LakeletError):
                rejected.append((table.location, str(attachment)))
            else:
                tables.append(attached_table(table.name, attachment, 0))
        store = LocalStore(folder)
        seed = _seed(store)
        graph = find(
            sorted(tables, key=lambda table: table.name),
            seed=seed,
            min_fraction=min_fraction,
            memory_bytes=CONTAINMENT_MEMORY_BYTES,
            budget_bytes=budget_bytes,
            verdicts=VerdictStore(store, seed),
            progress=report,
        )
    return Audit(where, graph, tuple(sorted(rejected)))


def _seed(store: LocalStore) -> bytes:
    """The secret under which this state folder's hashes were made; drawn at its first use."""
    if not store.exists("seed"):
        store.create("seed", secrets.token_bytes(SEED_BYTES))
    try:
        seed = store.get("seed")
    except NotFound as error:
        raise Corrupt(f"{store.uri} lost its seed while it was read; run again", path="seed") from error
    if len(seed) != SEED_BYTES:
        raise Corrupt(
            f"{store.uri}/seed holds {len(seed)} bytes, expected {SEED_BYTES}: remove the folder, audit makes it anew",
            path="seed",
        )
    return seed
