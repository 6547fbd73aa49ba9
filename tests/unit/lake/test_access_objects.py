"""Objects of access counts that are damaged, foreign, or of a newer lakelet: told, never passed over or deleted."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import pytest
from lakelet.lake.access_objects import ACCESSES, MERGED, Record, encode, leaf_path
from lakelet.lake.accesses import AccessCounter, compact, read_accesses
from lakelet.lake.errors import Corrupt, Unavailable
from lakelet.lake.stores import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from lakelet.lake.store import Store

DAY = date(2026, 3, 1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    made = open_store(tmp_path / "lake" if request.param == "local" else f"memory://{uuid.uuid4().hex}/lake")
    made.create("_lakelet/log/00000000000000000001.json", b"{}")  # a counter writes only where there is a lake
    return made


def objects(store: Store) -> list[str]:
    return sorted(info.path for info in store.list(ACCESSES))


def later() -> float:
    return NOON + 10 * 86_400


def one_object(store: Store) -> str:
    counter = AccessCounter(store, clock=lambda: NOON)
    counter.count("a", 3)
    counter.close()
    return objects(store)[0]


def test_damage_is_told_and_nothing_is_deleted(store: Store) -> None:
    path = one_object(store)
    one_object(store)
    data = store.get(path)
    other = path.replace(str(DAY), "2026-03-02")
    for at in range(0, len(data), 7):
        store.put(path, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises((Corrupt, Unavailable)) as caught:  # a flipped digit may make a newer format of it
            read_accesses(store)
        assert path in str(caught.value)
        store.put(path, data[:at])
        for act in (read_accesses, lambda store: compact(store, clock=later)):
            with pytest.raises(Corrupt) as damaged:
                act(store)
            assert damaged.value.path == path
    store.put(path, data)
    store.put(other, data)  # a copy under another name must not count twice
    with pytest.raises(Corrupt, match="renamed or copied"):
        read_accesses(store)
    store.delete([other])
    assert read_accesses(store).days == {"a": {DAY: 6}}
    assert len(objects(store)) == 2


def test_sound_bytes_that_make_no_sense_are_corrupt(store: Store) -> None:
    path = leaf_path(DAY, "0" * 32, 0)
    store.put(path, encode(path, Record({"a": -1}, 0, 0)))
    with pytest.raises(Corrupt, match="whole number"):
        read_accesses(store)
    store.delete([path])
    for name in (f"{ACCESSES}2026-02-30/{'0' * 32}-0.json", f"{ACCESSES}2026-02-28/x.json", f"{MERGED}x.json"):
        store.put(name, encode(name, Record({"a": 1}, 0, 0)))
        with pytest.raises(Corrupt, match=name):
            read_accesses(store)
        store.delete([name])
    store.put(f"{ACCESSES}2026-02-28/.nfs0001", b"left behind by a file system")
    assert read_accesses(store).days == {}


@pytest.mark.parametrize("head", [b'{"format":2,"checksum":"%s","accesses":{}}\n' % (b"0" * 64), b'{"format": 9}'])
def test_a_newer_format_is_refused(store: Store, head: bytes) -> None:
    path = one_object(store)
    one_object(store)
    for name in (path, f"{ACCESSES}month/2026-03.json"):
        store.put(name, head)
        with pytest.raises(Unavailable, match=r"format [29].*upgrade"):
            read_accesses(store)
        with pytest.raises(Unavailable, match="upgrade"):
            compact(store, clock=later)
        store.delete([name])
