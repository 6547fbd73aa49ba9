"""The objects that hold access counts: their names, their bytes, and how they are listed and fetched.

``_lakelet/accesses/<day>/<counter>-<number>.json`` is what one counter wrote at a time, and
``_lakelet/accesses/merged/<day>-<generation>.json`` what a compaction made of such; :mod:`.accesses` says when. All
are JSON, with a format version and a checksum in front: ``{"format":1,"checksum":"<sha-256 in hex>","accesses":{…}}``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from .errors import Corrupt, Unavailable
from .limits import ACCESS_FETCH_OBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .store import Store

__all__ = [
    "ACCESSES",
    "FORMAT",
    "MEND",
    "MERGED",
    "Found",
    "Leaf",
    "Record",
    "encode",
    "fetch",
    "leaf_path",
    "list_found",
    "merged_path",
]


FORMAT: Final = 1
"""Version of the objects of counts. A reader refuses anything newer."""
ACCESSES: Final = "_lakelet/accesses/"
MERGED: Final = ACCESSES + "merged/"
MEND: Final = "restore it from a copy of the lake, or delete it and go without its counts"

_LEAF: Final = re.compile(re.escape(ACCESSES) + r"(\d{4}-\d{2}-\d{2})/([0-9a-f]{32})-(\d{1,9})\.json")
_GENERATION: Final = re.compile(re.escape(MERGED) + r"(\d{4}-\d{2}-\d{2})-(\d{6})\.json")
_HEAD: Final = re.compile(rb'\{"format":(\d{1,9}),"checksum":"([0-9a-f]{64})","accesses":')


def leaf_path(day: date, counter: str, number: int) -> str:
    """Where a counter's object of that number of the day stands."""
    return f"{ACCESSES}{day}/{counter}-{number}.json"


def merged_path(day: date, generation: int) -> str:
    """Where the merged object of that generation of the day stands; the first is 1."""
    return f"{MERGED}{day}-{generation:06d}.json"


# --- one object --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """What one object holds: reads by table id, counted between two times in seconds since the epoch.

    ``covers``: for a merged one, by counter, the number from which on that counter's objects are not in it.
    """

    reads: Mapping[str, int]
    from_s: int
    until_s: int
    covers: Mapping[str, int] = field(default_factory=dict)


def encode(path: str, record: Record) -> bytes:
    """The bytes of the object that stands at ``path``: a format number and a checksum in front of the rest."""
    document = {
        "path": path,
        "from": record.from_s,
        "until": record.until_s,
        "reads": dict(record.reads),
        "covers": dict(record.covers),
    }
    body = json.dumps(document, separators=(",", ":")).encode()
    checksum = hashlib.sha256(body).hexdigest()
    return b'{"format":%d,"checksum":"%s","accesses":%s}\n' % (FORMAT, checksum.encode(), body)


def _decode(path: str, data: bytes) -> Record:
    """What the object holds. Raises Corrupt for damaged bytes, Unavailable for those of a newer lakelet."""
    _refuse_newer(path, data)
    head = _HEAD.match(data)
    if head is None:
        raise Corrupt(f"{path} holds no access counts: it starts with {data[:24]!r}; {MEND}", path=path, offset=0)
    body = data[head.end() : -2]
    if data[-2:] != b"}\n" or hashlib.sha256(body).hexdigest().encode() != head[2]:
        raise Corrupt(f"{path} is damaged: its checksum does not match its bytes; {MEND}", path=path, offset=head.end())
    try:
        document = json.loads(body)
        record = Record(
            _numbers(document["reads"]), int(document["from"]), int(document["until"]), _numbers(document["covers"])
        )
        held = document["path"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Corrupt(f"{path} says what no access counts can say: {error!r}; {MEND}", path=path) from error
    if held != path:
        raise Corrupt(f"{path} holds the counts of {held}: a file was renamed or copied; {MEND}", path=path)
    return record


def _numbers(value: Any) -> dict[str, int]:
    for key, number in value.items():
        if type(number) is not int or number < 0:
            raise TypeError(f"{number!r} for {key!r} where a whole number is expected")
    return dict(value)


def _refuse_newer(path: str, data: bytes) -> None:
    """A later format may look different altogether, but it will say its number."""
    head = _HEAD.match(data)
    try:
        found = int(head[1]) if head else json.loads(data).get("format")
    except (ValueError, AttributeError, RecursionError):
        return
    if isinstance(found, int) and found > FORMAT:
        raise Unavailable(
            f"{path} has format {found}, this lakelet reads up to {FORMAT}: pip install --upgrade lakelet"
        )


# --- listing and fetching ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leaf:
    """One object of a counter: its ``path``, the counter's id, and its number among those of the day."""

    path: str
    counter: str
    number: int


@dataclass(slots=True)
class Found:
    """The objects of one day: those of counters, and the highest generation; 0: there is none."""

    leaves: list[Leaf] = field(default_factory=list)
    generation: int = 0


def list_found(store: Store) -> dict[date, Found]:
    """The objects of every day. The generations are listed last, which is what lets a reader trust what it found."""
    found: defaultdict[date, Found] = defaultdict(Found)
    for info in store.list(ACCESSES):
        if match := _LEAF.fullmatch(info.path):
            found[_day_of_name(info.path, match[1])].leaves.append(Leaf(info.path, match[2], int(match[3])))
        elif not info.path.startswith(MERGED):
            _refuse_stranger(store, info.path)
    for info in store.list(MERGED):
        if match := _GENERATION.fullmatch(info.path):
            day = found[_day_of_name(info.path, match[1])]
            day.generation = max(day.generation, int(match[2]))
        else:
            _refuse_stranger(store, info.path)
    return dict(found)


def _day_of_name(path: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise Corrupt(f"{path} names a day that is none ({error}); {MEND}", path=path) from error


def _refuse_stranger(store: Store, path: str) -> None:
    """Counts under a name that is none of ours are not passed over. What file systems leave behind is."""
    if not path.endswith(".json"):
        return
    data = store.get_many([path])[0]
    if data is not None:
        _refuse_newer(path, data)
        raise Corrupt(f"{path} is no name of an object of access counts: a file was renamed; {MEND}", path=path)


def fetch(store: Store, paths: Sequence[str]) -> Iterator[Record | None]:
    """What each object holds, in order; None where it is gone."""
    for start in range(0, len(paths), ACCESS_FETCH_OBJECTS):
        part = paths[start : start + ACCESS_FETCH_OBJECTS]
        for path, data in zip(part, store.get_many(part), strict=True):
            yield None if data is None else _decode(path, data)
