"""A durable index whose machine stops at every file operation: all that was acknowledged is there, and nothing torn."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from lakelet.lake.errors import InvalidInput, NotFound, Unavailable
from lakelet.vector import container
from lakelet.vector import index as index_module
from lakelet.vector import units as units_module
from lakelet.vector.index import VectorIndex
from lakelet.vector.labels import PUBLIC
from lakelet.vector.matching import table_of
from lakelet.vector.postings import folded

SECTOR_BYTES = 512


class File:
    """One file: what is on the platter, and what was asked for since it was last synced."""

    def __init__(self) -> None:
        self.synced = bytearray()
        self.pending: list[tuple[int, bytes | None]] = []  # where, and what; None: cut there

    def after(self, keep: Callable[[int, bytes], list[tuple[int, bytes]]], cuts: Callable[[], bool]) -> bytes:
        """What the file may hold; ``keep`` says which parts of a write came through."""
        data = bytearray(self.synced)
        for position, written in self.pending:
            if written is None:
                if cuts():
                    data[position:] = b""
                    data += bytes(position - len(data))
                continue
            for start, part in keep(position, written):
                data += bytes(max(0, start - len(data)))
                data[start : start + len(part)] = part
        return bytes(data)


class Disk:
    """Records calls on files below ``folder``; the real ones are made too, so that the program goes on.

    ``events`` holds what was asked for, and what :meth:`mark` put between. ``fail`` names the next call to fail.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.events = str(folder), list[tuple[Any, ...]]()
        self.fail: str | None = None
        self._of: dict[int, File | None] = {}  # by descriptor; None is a folder
        self._named: dict[str, File] = {}
        real = {name: getattr(os, name) for name in ("open", "pwrite", "ftruncate", "fsync", "replace", "unlink")}
        self._real = real
        for name in real:
            patch.setattr(os, name, getattr(self, f"_{name}"))

    def mark(self, what: str, number: int) -> None:
        self.events.append((what, number))

    def _failing(self, name: str) -> bool:
        if self.fail == name:
            self.fail = None
            return True
        return False

    def _open(self, path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        descriptor: int = self._real["open"](path, flags, mode, **more)
        text = os.fspath(path)
        self._of.pop(descriptor, None)
        if text.startswith(self.folder):
            if flags & os.O_DIRECTORY:
                self._of[descriptor] = None
            elif text in self._named:
                self._of[descriptor] = self._named[text]
            elif flags & os.O_CREAT:
                self._of[descriptor] = self._named[text] = File()
                self.events.append(("create", text, self._named[text]))
        return descriptor

    def _pwrite(self, descriptor: int, data: Any, position: int) -> int:
        broken = descriptor in self._of and self._failing("pwrite")
        some = bytes(data)[: len(data) // 2] if broken else bytes(data)
        if descriptor in self._of:
            self.events.append(("write", self._of[descriptor], position, some))
        written: int = self._real["pwrite"](descriptor, some, position)
        if broken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    def _ftruncate(self, descriptor: int, size: int) -> None:
        if descriptor in self._of:
            self.events.append(("cut", self._of[descriptor], size))
        self._real["ftruncate"](descriptor, size)

    def _fsync(self, descriptor: int) -> None:  # never the real one: this machine stays on
        if descriptor in self._of and self._failing("fsync"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if descriptor in self._of:
            file = self._of[descriptor]
            self.events.append(("sync folder",) if file is None else ("sync", file))

    def _replace(self, source: Any, target: Any) -> None:
        if not os.fspath(source).startswith(self.folder):  # of Numba's cache
            self._real["replace"](source, target)
            return
        if self._failing("replace"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._real["replace"](source, target)
        self._named[os.fspath(target)] = self._named.pop(os.fspath(source))
        self.events.append(("rename", os.fspath(source), os.fspath(target)))

    def _unlink(self, path: Any) -> None:
        self._real["unlink"](path)
        if self._named.pop(os.fspath(path), None) is not None:
            self.events.append(("remove", os.fspath(path)))


class Platter:
    """What is on the disk after some of the events."""

    def __init__(self) -> None:
        self.names: dict[str, File] = {}
        self.pending: list[tuple[Any, ...]] = []

    def step(self, event: tuple[Any, ...]) -> bool:
        """Take in an event; whether it touches the disk."""
        what = event[0]
        if what == "write":
            event[1].pending.append((event[2], event[3]))
        elif what == "cut":
            event[1].pending.append((event[2], None))
        elif what == "sync":
            event[1].synced = bytearray(event[1].after(lambda at, data: [(at, data)], lambda: True))
            event[1].pending = []
        elif what == "sync folder":
            self.names = self._names(self.pending)
            self.pending = []
        elif what in ("create", "rename", "remove"):
            self.pending.append(event)
        else:
            return False
        return True

    def crashed(self, target: Path, random: Random) -> None:
        """Write to ``target`` what may be left when the machine stops now: some of what was not synced, or torn."""
        way = random.choice(["process", "power", "some", "some", "some"])
        kept = {"process": self.pending, "power": []}.get(way)
        if kept is None:
            most = random.randint(0, len(self.pending))
            in_order = random.random() < 0.7
            kept = self.pending[:most] if in_order else [each for each in self.pending if random.random() < 0.5]

        def keep(position: int, data: bytes) -> list[tuple[int, bytes]]:
            if way != "some":
                return [(position, data)] if way == "process" else []
            how = random.random()
            if how < 0.3:
                return [(position, data)]
            if how < 0.5:
                return []
            if how < 0.75:
                return [(position, data[: random.randint(0, len(data))])]
            sectors = range(0, len(data), SECTOR_BYTES)
            return [(position + at, data[at : at + SECTOR_BYTES]) for at in sectors if random.random() < 0.5]

        def cuts() -> bool:
            return way == "process" or (way == "some" and random.random() < 0.5)

        target.mkdir()
        for name, file in self._names(kept).items():
            (target / Path(name).name).write_bytes(file.after(keep, cuts))

    def _names(self, events: list[tuple[Any, ...]]) -> dict[str, File]:
        names = dict(self.names)
        of = {event[1]: event[2] for event in self.pending if event[0] == "create"}
        for event in events:
            if event[0] == "create":
                names[event[1]] = event[2]
            elif event[0] == "rename":
                file = names.pop(event[1], of.get(event[1]))
                if file is not None:
                    names[event[2]] = file
            else:
                names.pop(event[1], None)
        return names


# --- what an index should hold --------------------------------------------------------------------------------

DIM = 4
LABELS: list[Any] = ["a", "b", 7, "7", PUBLIC, "\ud83c\udf0a", 10**30]
ATTRIBUTES = {"year": "int64", "word": "string"}
Rows = dict[int, tuple[tuple[float, ...], frozenset[Any], tuple[Any, ...]]]


class Model:
    """Rows by id: vector, labels and attributes; and the tenants that are known."""

    def __init__(self) -> None:
        self.rows: Rows = {}
        self.known: set[Any] = set()
        self.next_id = 0

    def copy(self) -> Model:
        return deepcopy(self)

    def add(self, ids: list[int], vectors: np.ndarray, labels: list[list[Any]], attributes: list[Any]) -> None:
        for row, vector, mine, values in zip(ids, vectors.tolist(), labels, attributes, strict=True):
            self.rows[row] = tuple(vector), frozenset(mine), tuple(values)
            self.known |= set(mine)
        self.next_id = max([self.next_id, *(row + 1 for row in ids)])

    def revise(self, ids: list[int], label: Any, granting: bool) -> None:
        for row in ids:
            vector, mine, values = self.rows[row]
            self.rows[row] = vector, mine | {label} if granting else mine - {label}, values
        if granting:
            self.known.add(label)

    def delete(self, ids: list[int]) -> None:
        for row in ids:
            del self.rows[row]

    def drop(self, label: Any, keep_rows: bool) -> None:
        for row, (vector, mine, values) in list(self.rows.items()):
            if mine == {label} and not keep_rows:
                del self.rows[row]
            else:
                self.rows[row] = vector, mine - {label}, values
        self.known.discard(label)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and (self.rows, self.known - {PUBLIC}) == (other.rows, other.known - {PUBLIC})

    __hash__ = None  # type: ignore[assignment]


def held(index: VectorIndex) -> Model:
    """What an index holds, read off its units."""
    model = Model()
    with index._units.lock:
        known = {code: label for label, code in index._labels.known()}
        for unit in index._units.now:
            labels: list[set[Any]] = [set() for _ in range(len(unit))]
            for code in unit.postings.codes():
                for row in folded(unit.postings.get(code)).tolist():
                    labels[row].add(known[code])
            values = list(zip(*table_of(unit.columns, np.arange(len(unit))).to_pydict().values(), strict=True))
            for row in np.flatnonzero(unit.rows.live[: len(unit)]).tolist():
                vector = tuple(unit.rows.vectors[row].tolist())
                assert int(unit.rows.ids[row]) not in model.rows
                model.rows[int(unit.rows.ids[row])] = vector, frozenset(labels[row]), values[row]
        model.known, model.next_id = set(known.values()), index._state.next_id
    return model


def planned(index: VectorIndex, model: Model, random: Random) -> tuple[Callable[[], Any], Model]:
    """A random operation, and the model after it: the same one if it is to be refused."""
    after, ids = model.copy(), sorted(model.rows)
    what = random.choice(["add", "add", "add", "grant", "revoke", "delete", "drop", "refused"]) if ids else "add"
    some = sorted(random.sample(ids, min(len(ids), random.randint(1, 4))))
    label = random.choice(LABELS)
    if what == "add":
        count = random.choice([1, 1, 1, 2, 5, 30])
        vectors = np.array([[random.gauss(0, 1) for _ in range(DIM)] for _ in range(count)], np.float32)
        labels = [random.sample(LABELS, random.randint(0, 3)) for _ in range(count)]
        values = [(random.choice([None, 3, -(2**60)]), random.choice([None, "x", "ü" * 300])) for _ in range(count)]
        given = random.sample(sorted(set(range(200)) - set(ids)), count) if random.random() < 0.3 else None
        named = given or list(range(index._state.next_id, index._state.next_id + count))
        after.add(named, vectors, labels, values)
        columns = {"year": [year for year, _ in values], "word": [word for _, word in values]}
        return lambda: index.add(vectors, given, labels, columns), after
    if what == "grant":
        after.revise(some, label, True)
        return lambda: index.grant(some, label), after
    if what == "delete":
        after.delete(some)
        return lambda: index.delete(some), after
    if what == "revoke" and label in model.known | {PUBLIC}:
        after.revise(some, label, False)
        return lambda: index.revoke(some, label), after
    if what == "drop" and label in model.known | {PUBLIC}:
        keep = random.random() < 0.5
        after.drop(label, keep)
        return lambda: index.drop_tenant(label, keep_rows=keep), after
    return lambda: refused(index, ids[0], random.randint(0, 3)), model


def refused(index: VectorIndex, taken: int, way: int) -> None:
    """Do what must be refused."""
    with pytest.raises((InvalidInput, NotFound)):
        if way == 0:
            index.add(np.ones((2, DIM), np.float32), [taken, 10_000], "refused")
        elif way == 1:
            index.delete([20_000])
        elif way == 2:
            index.drop_tenant("stranger")
        else:
            index.grant([20_000], "refused")


# --- crashes -------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units_module, "VECTOR_DELTA_ROWS", 64)
    monkeypatch.setattr(index_module, "VECTOR_BULK_ROWS", 28)


class Workload:
    """Random operations on a durable index, with what it holds after each; now and then the disk refuses one."""

    def __init__(self, folder: Path, seed: int, failing: float, patch: pytest.MonkeyPatch) -> None:
        self.random, self.failing, self.refusals = Random(seed), failing, 0
        self.disk = Disk(folder, patch)
        self.states, self.tried = [Model()], [Model()]
        real = container.write

        def write(*args: Any, **kwargs: Any) -> None:
            for _ in range(self.random.randint(0, 3) if len(self.states) > 1 else 0):
                self.operation()  # while the snapshot is written
            real(*args, **kwargs)

        patch.setattr(container, "write", write)
        self.index = VectorIndex.open(folder, DIM, attributes=ATTRIBUTES, threads=1)
        self.disk.mark("acknowledged", 0)

    def operation(self) -> None:
        before = self.states[-1]
        act, after = planned(self.index, before, self.random)
        self.tried.append(after)
        if self.random.random() < self.failing:
            self.disk.fail = self.random.choice(["pwrite", "fsync"])
        self.disk.mark("begun", len(self.states))
        at = len(self.disk.events)
        try:
            act()
            assert after is not before or len(self.disk.events) == at, "what was refused was written"
        except Unavailable:
            self.refusals += 1
            after = before
        self.disk.fail = None
        assert held(self.index) == after
        self.states.append(after)
        self.disk.mark("acknowledged", len(self.states) - 1)

    def checkpoint(self) -> None:
        if self.random.random() < 4 * self.failing:
            self.disk.fail = self.random.choice(["pwrite", "fsync", "replace"])
        try:
            self.index.save()
        except Unavailable:
            self.refusals += 1
        self.disk.fail = None

    def run(self, operations: int) -> None:
        while len(self.states) < operations:
            (self.checkpoint if self.random.random() < 0.15 else self.operation)()
        self.index.wait()


def crashes(workload: Workload, folder: Path) -> Iterator[tuple[Path, list[Model]]]:
    """A folder as it may be after each file operation, and what it may hold."""
    platter, begun, acknowledged = Platter(), 0, -1
    for event in workload.disk.events:
        if event[0] == "begun":
            begun = event[1]  # refused or not: nobody was told yet
        elif event[0] == "acknowledged":
            acknowledged = event[1]
            workload.tried[acknowledged] = workload.states[acknowledged]
        elif platter.step(event):
            platter.crashed(folder, workload.random)
            yield folder, [workload.states[max(acknowledged, 0)], workload.tried[begun]]
            shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("seed", "failing"),
    [
        (12, 0.0),
        (3, 0.15),
        *(pytest.param(seed, failing, marks=pytest.mark.slow) for seed in range(20, 26) for failing in (0.0, 0.2)),
    ],
)
def test_a_crash_at_every_file_operation_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, failing: float
) -> None:
    with monkeypatch.context() as patch:
        workload = Workload(tmp_path / "index", seed, failing, patch)
        workload.run(70)
    assert (workload.refusals > 3) == (failing > 0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    places, cut = 0, 0
    for folder, allowed in crashes(workload, tmp_path / "crashed"):
        with VectorIndex.open(folder, DIM, attributes=ATTRIBUTES, threads=1) as index:
            found = held(index)
            assert found in allowed, f"place {places}: {len(found.rows)} rows"
            cut += found == allowed[0] != allowed[-1]
            if places % 10 == 0:  # it goes on from there
                for _ in range(3):
                    act, found = planned(index, found, workload.random)
                    act()
        if places % 10 == 0:
            with VectorIndex.open(folder, threads=1) as index:
                assert held(index) == found
        places += 1
    assert places > (250 if seed < 20 else 150)
    assert cut > 5
