"""The process dies, or the store refuses, at every single request of whatever makes, moves or unmakes retired tables.

Each operation happened whole or not at all; every version that is kept reads as it did when it was committed, bit for
bit; the operation can be done again; and once vacuum and expiry have been through, all that is reachable is there and
nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import lakelet
import numpy as np
import pyarrow as pa
import pytest
from lakelet.lake import catalog as catalog_module
from lakelet.lake.accesses import AccessCounter
from lakelet.lake.bitwise import differing_rows
from lakelet.lake.errors import CommitUnknown, Unavailable
from lakelet.lake.log import Log
from lakelet.lake.snapshot import OwnedTable
from lakelet.lake.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lakelet.engine import Engine
    from lakelet.lake.snapshot import Snapshot
    from lakelet.lake.store import Store

Tables = dict[str, pa.Table]
DAY = 86_400.0
OLD_DAYS = 4.0
"""Everything in a lake that an operation is tried on is older than this."""


# --- stores that fail ----------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process is dead: nothing that it does from now on reaches the store."""


REQUESTS = frozenset({"create", "put", "get", "get_many", "exists", "list", "delete", "sync"})
FILES = frozenset({"create_dir", "open_output_stream", "open_input_file"})
CHANGES = frozenset({"create", "put", "delete", "sync", "open_output_stream"})
"""After any other request the store is as it was before it."""


class FailingStore:
    """Goes wrong at request number ``at`` of those whose names are in ``counted``; later than the last one: never.

    ``mode``: "before" and "after", the process dies before the request is done, or right after; a file that was not
    synced is torn then. "refused", it and the two requests after it raise Unavailable, as many as it takes for a commit
    to end in doubt; "lost request" and "lost answer", a create gives no answer, without having been done or after. Each
    path of a delete is a request of its own.
    """

    def __init__(self, inner: Store, at: int, mode: str, counted: frozenset[str] = REQUESTS | FILES) -> None:
        self.inner = inner
        self.at = at
        self.mode = mode
        self.counted = counted
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        return self.watched(name, found) if name in REQUESTS else found

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            self.watched("delete", self.inner.delete)([path])

    @property
    def arrow(self) -> Any:
        return FailingFiles(self)

    def watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def request(*args: Any, **kwargs: Any) -> Any:
            number = self.count
            self.count += name in self.counted
            dead = self.mode in ("before", "after")
            strikes = number == self.at and name in self.counted
            if (dead and number > self.at) or (strikes and self.mode == "before"):
                if strikes and name == "sync":
                    os.truncate(self.inner.full_path(args[0]), os.path.getsize(self.inner.full_path(args[0])) // 2)
                raise Crash
            if self.mode == "refused" and name in self.counted and self.at <= number < self.at + 3:
                raise Unavailable("refused")
            if strikes and self.mode == "lost request":
                raise CommitUnknown("lost request")
            answer = call(*args, **kwargs)
            if strikes and dead:
                raise Crash
            if strikes:
                raise CommitUnknown("lost answer")
            return answer

        return request


class FailingFiles:
    """The Arrow file system of a failing store."""

    def __init__(self, store: FailingStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store.inner.arrow, name)
        return self.store.watched(name, found) if name in FILES else found


# --- the lake, and what each of its versions holds -----------------------------------------------------------------


def texts(count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [random.bytes(24).hex() for _ in range(count)]


ROWS = 240
NUMBERS = np.arange(ROWS + 30)
WHOLE = pa.table(
    {"id": NUMBERS, "x": np.where(NUMBERS % 30 == 0, 0.0, NUMBERS / 7), "s": texts(len(NUMBERS), 1)},
)
PARENT = WHOLE.slice(0, ROWS)
SHUFFLED = PARENT.take(np.random.default_rng(2).permutation(ROWS)[:90])
SIGNED = PARENT.slice(20, 110)
SIGNED = SIGNED.set_column(1, "x", pa.array(np.where(SIGNED["x"].to_numpy() == 0, -0.0, SIGNED["x"].to_numpy())))
"""Zeros of the other sign, which the parent does not have: its recipe needs residual rows."""
SELECTED = PARENT.slice(35, 120).select(["s", "id"]).append_column("seen", pa.array(np.arange(120) // 9))
"""With a column of its own, which is kept beside its recipe."""
PARTS = [PARENT.slice(70, 100), PARENT.slice(0, 80)]
CHILDREN = ("parts", "selected", "shuffled", "signed")


def matching(table: pa.Table, keep: Callable[[np.ndarray], np.ndarray]) -> pa.Table:
    return table.filter(pa.array(keep(table["id"].to_numpy())))


@dataclass
class Lake:
    """A lake in a folder, and the tables of each of its versions, as they were when it was committed."""

    root: Path
    models: dict[int, Tables] = field(default_factory=dict)
    plan: Any = None

    @contextlib.contextmanager
    def past(self) -> Iterator[Engine]:
        """An engine whose commits are made days ago, an hour apart."""
        begun = time.time() - (OLD_DAYS + 6) * DAY
        with lakelet.connect(self.root) as db:
            store = db._catalog.store
            db._catalog.log = Log(store, clock=lambda: begun + 3_600 * (1 + max(self.models, default=0)))
            yield db

    def did(self, version: int, **tables: pa.Table | None) -> None:
        """A commit made ``version``; these tables are other ones since, None those that are gone."""
        now = dict(self.models[version - 1]) if self.models else {}
        now.update(tables)
        self.models[version] = {name: table for name, table in now.items() if table is not None}
        age_all(self.root)

    def copy(self, root: Path) -> Lake:
        """The same lake elsewhere. Objects are never written to, so that copies may share them."""
        shutil.copytree(self.root, root, copy_function=os.link)
        return Lake(root, dict(self.models), self.plan)


def age_all(root: Path) -> None:
    then = time.time() - OLD_DAYS * DAY
    for folder, _, names in os.walk(root):
        for name in names:
            os.utime(os.path.join(folder, name), (then, then))


def planned(db: Engine, **parents: str) -> Any:
    """The plan that retires just these tables, whether they pay or not."""
    plan = db.containment(extra_columns=1).plan(
        prices=lakelet.Prices.s3_standard(), accesses=None, max_restore_seconds=1e9
    )
    known = plan.candidates
    assert all((known.position[c], known.position[p]) in known.number for c, p in parents.items())
    chosen = [known.position[parents[name]] if name in parents else -1 for name in known.names]
    return replace(plan, _parents=tuple(chosen))


def plain_lake(root: Path) -> Lake:
    """A parent of three files, what can be rebuilt from it, and what contains the parent."""
    lake = Lake(root)
    with lake.past() as db:
        lake.did(db.write("p", PARENT.slice(0, 90)), p=PARENT.slice(0, 90))
        lake.did(db.write("p", PARENT.slice(90, 80), "append"), p=PARENT.slice(0, 170))
        lake.did(db.write("p", PARENT.slice(170, 70), "append"), p=PARENT)
        lake.did(db.write("parts", PARTS[0]), parts=PARTS[0])
        both = pa.concat_tables(PARTS)
        lake.did(db.write("parts", PARTS[1], "append"), parts=both)
        lake.did(db.delete("parts", "id % 20 = 3"), parts=matching(both, lambda ids: ids % 20 != 3))
        with db.transaction() as transaction:
            transaction.write("signed", SIGNED)
            transaction.write("selected", SELECTED)
            transaction.write("shuffled", SHUFFLED)
            transaction.write("whole", WHOLE)
        lake.did(db.version, signed=SIGNED, selected=SELECTED, shuffled=SHUFFLED, whole=WHOLE)
        lake.plan = planned(db, **dict.fromkeys(CHILDREN, "p"))
    return lake


def retired_lake(plain: Lake, root: Path) -> Lake:
    """All of them retired, and a plan to retire the parent too."""
    lake = plain.copy(root)
    with lake.past() as db:
        done = db.retire(lake.plan)
        assert {one.table for one in done.retired} == set(CHILDREN)
        assert not done.skipped
        assert {one.table for one in done.retired if one.residual_rows} == {"signed"}
        lake.did(done.version)
        lake.plan = planned(db, p="whole")
    return lake


def swept_lake(retired: Lake, root: Path) -> Lake:
    """The parent lost rows, older versions are expired and nothing was vacuumed: many files belong to no version."""
    lake = retired.copy(root)
    with lake.past() as db:
        lake.did(db.optimize("p"))
        lake.did(db.delete("p", "id % 9 = 4"), p=matching(PARENT, lambda ids: ids % 9 != 4))
    with lakelet.connect(root) as db:
        floor = db.expire(OLD_DAYS * DAY).floor
        assert floor == max(lake.models)
        lake.models = {version: tables for version, tables in lake.models.items() if version >= floor}
        assert len(db.vacuum(dry_run=True).paths) > 12
    return lake


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the process dies here, not the machine
    monkeypatch.setattr(AccessCounter, "count", lambda *_: None)  # no thread for each of thousands of engines


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lake]:
    root = tmp_path_factory.mktemp("lakes")
    plain = plain_lake(root / "plain")
    retired = retired_lake(plain, root / "retired")
    return {"plain": plain, "retired": retired, "swept": swept_lake(retired, root / "swept")}


# --- operations ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """What is done to which lake, and the tables it leaves other than they were; None: gone."""

    lake: str
    run: Callable[[Engine, Any], object]
    leaves: Mapping[str, pa.Table | None] = field(default_factory=dict)
    commits: bool = True
    retired: tuple[str, ...] = CHILDREN


NEWER = pa.table({"id": [3, 71, 200, 900], "x": [0.5, -0.0, 2.5, 9.0], "s": ["a", "b", "c", "d"]})
MERGED = pa.concat_tables([matching(PARENT, lambda ids: ~np.isin(ids, [3, 71, 200])), NEWER])


def delete_and_drop(db: Engine, _: Any) -> None:
    with db.transaction(dependants="restore") as transaction:
        transaction.delete("p", "id >= 100")
        transaction.drop("selected")
        transaction.write("fresh", NEWER)


OPERATIONS = {
    "retire": Operation("plain", lambda db, plan: db.retire(plan)),
    "retire the parent": Operation("retired", lambda db, plan: db.retire(plan), retired=(*CHILDREN, "p")),
    "restore": Operation("retired", lambda db, _: db.restore("signed"), retired=("parts", "selected", "shuffled")),
    "delete": Operation(
        "retired", lambda db, _: db.delete("p", "id % 5 = 2"), {"p": matching(PARENT, lambda ids: ids % 5 != 2)}
    ),
    "merge": Operation("retired", lambda db, _: db.merge("p", NEWER, ["id"]), {"p": MERGED}),
    "overwrite": Operation(
        "retired", lambda db, _: db.write("p", NEWER, "overwrite", dependants="restore"), {"p": NEWER}, retired=()
    ),
    "drop": Operation("retired", lambda db, _: db.drop("p", dependants="restore"), {"p": None}, retired=()),
    "optimize": Operation("retired", lambda db, _: db.optimize("p")),
    "transaction": Operation(
        "retired",
        delete_and_drop,
        {"p": matching(PARENT, lambda ids: ids < 100), "selected": None, "fresh": NEWER},
        retired=("parts", "shuffled", "signed"),
    ),
    "vacuum": Operation("swept", lambda db, _: db.vacuum(), commits=False),
    "expire": Operation("retired", lambda db, _: db.expire(OLD_DAYS * DAY), commits=False),
}


# --- the promise ---------------------------------------------------------------------------------------------------

PROVEN: dict[object, pa.Table] = {}
"""Tables that were read and compared: by what the log says of them and which files, by inode, are there. Objects are
never written to, so that the same ones read the same in every copy of a lake."""


def objects_of(value: Any) -> set[str]:
    """The objects that a file of the log names, wherever it names them: not asked of the code that vacuum asks."""
    if isinstance(value, str):
        return {value} if value.startswith("data/") else set()
    if is_dataclass(value):
        value = [getattr(value, one.name) for one in fields(value) if one.name != "stats"]
    return set().union(*map(objects_of, value)) if isinstance(value, list | tuple) else set()


def check_table(db: Engine, snapshot: Snapshot, name: str, expected: pa.Table) -> None:
    entry = snapshot.table(name)
    assert isinstance(entry, OwnedTable)
    store = db._catalog.store
    objects = []
    for path in sorted(objects_of(list(entry.files.values()))):
        there = os.stat(store.full_path(path))
        objects.append((path, there.st_ino, there.st_size))
    files = tuple((file.state, file.num_rows, file.schema_id, file.recipe) for file in entry.files.values())
    proof = (entry.schemas, files, tuple(objects), id(expected))
    if proof in PROVEN:
        return
    found = db._catalog.table(snapshot, name).to_arrow()
    assert found.schema.equals(expected.schema)
    assert found.num_rows == expected.num_rows
    for one, two in zip(found.columns, expected.columns, strict=True):
        assert not differing_rows(one, two).size
    PROVEN[proof] = expected


def check_versions(db: Engine, models: Mapping[int, Tables]) -> set[str]:
    """Every version that is kept is as it was. Returns the paths that they need."""
    latest = db.version
    kept = sorted({line.version for line in db.history()})
    assert kept == list(range(kept[0], latest + 1))
    needed: set[str] = set()
    for version in kept:
        snapshot = db.at(version)._snapshot()
        assert set(db.at(version).tables()) == set(models[version])
        for name, expected in models[version].items():
            check_table(db, snapshot, name, expected)
        needed.update(*(objects_of(list(table.files.values())) for table in owned(snapshot)))
    check_sources(db.at(latest)._snapshot())
    return needed


def owned(snapshot: Snapshot) -> list[OwnedTable]:
    return [table for table in snapshot.tables.values() if isinstance(table, OwnedTable)]


def check_sources(snapshot: Snapshot) -> None:
    """Recipes name files that their tables have: rows that are gone from a table are kept for nobody else."""
    there = {(table.table_id, file.path) for table in owned(snapshot) for file in table.files.values()}
    named = [file.recipe.sources for table in owned(snapshot) for file in table.files.values() if file.recipe]
    assert {(source.table_id, source.path) for sources in named for source in sources} <= there


def check_outcome(lake: Lake, operation: Operation) -> bool:
    """Whole or not at all; which of the two is returned."""
    with lakelet.connect(lake.root) as db:
        before = max(lake.models)
        happened = db.version > before
        assert db.version <= before + operation.commits
        models = dict(lake.models)
        if happened:
            models[db.version] = after(lake, operation)
            kinds = {name for name, info in db.tables().items() if info.kind == "retired"}
            assert kinds == set(operation.retired)
        check_versions(db, models)
        return happened


AFTER: dict[int, Tables] = {}


def after(lake: Lake, operation: Operation) -> Tables:
    """The tables that the operation leaves: the same objects each time."""
    if id(operation) not in AFTER:
        now = {**lake.models[max(lake.models)], **operation.leaves}
        AFTER[id(operation)] = {name: table for name, table in now.items() if table is not None}
    return AFTER[id(operation)]


def check_sweep(lake: Lake, operation: Operation) -> None:
    """Vacuum, expiry, vacuum: after each, what is kept is there, and after vacuum nothing else."""
    models = dict(lake.models)
    if operation.commits:
        models[max(models) + 1] = after(lake, operation)
    age_all(lake.root)
    with lakelet.connect(lake.root) as db:
        for expires in (False, True):
            if expires:
                db.expire(OLD_DAYS * DAY / 2)
                assert min(line.version for line in db.history()) == max(lake.models)
            db.vacuum()
            needed = check_versions(db, models)
            assert {info.path for info in db._catalog.store.list("data/")} == needed
            assert not list(db._catalog.store.list("_lakelet/tmp/"))


def check_all(lake: Lake, operation: Operation) -> bool:
    """The whole promise. Whether the operation had happened before it was done again."""
    happened = check_outcome(lake, operation)
    if not happened:
        with lakelet.connect(lake.root) as db:
            operation.run(db, lake.plan)
        assert check_outcome(lake, operation) == operation.commits
    check_sweep(lake, operation)
    return happened


# --- every request -------------------------------------------------------------------------------------------------


def fail_everywhere(
    lake: Lake,
    operation: Operation,
    mode: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    counted: frozenset[str] = REQUESTS | FILES,
) -> int:
    """Points at which it went wrong, one after the other, until it goes through."""
    at = 0
    outcomes: Counter[bool] = Counter()
    while True:
        copy = lake.copy(root / str(at))
        store: Any = FailingStore(open_store(copy.root), at, mode, counted)
        with monkeypatch.context() as patch:
            patch.setattr(catalog_module, "open_store", lambda *_, store=store: store)
            with contextlib.suppress(Crash, Unavailable, CommitUnknown):
                operation.run(lakelet.connect(copy.root), copy.plan)
        happened = check_all(copy, operation)
        shutil.rmtree(copy.root)
        if store.count <= at:
            assert happened == operation.commits
            return at
        outcomes[happened] += 1
        at += 1


POINTS = {
    "retire": (33, 8),
    "retire the parent": (46, 10),
    "restore": (9, 3),
    "delete": (57, 18),
    "merge": (57, 0),
    "overwrite": (38, 12),
    "drop": (35, 10),
    "optimize": (37, 9),
    "transaction": (38, 0),
    "vacuum": (35, 20),
    "expire": (31, 12),
}
"""At least so many requests and changes each operation makes; 0: its changes are left to the slow tests."""


def test_there_are_enough_points_of_failure() -> None:
    assert POINTS.keys() == OPERATIONS.keys()
    assert sum(requests + changes for requests, changes in POINTS.values()) >= 500


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_crash_before_every_request(
    lakes: dict[str, Lake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    operation = OPERATIONS[name]
    assert fail_everywhere(lakes[operation.lake], operation, "before", tmp_path, monkeypatch) >= POINTS[name][0]


@pytest.mark.parametrize("name", [name for name, (_, changes) in POINTS.items() if changes])
def test_a_crash_after_every_change(
    lakes: dict[str, Lake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    operation = OPERATIONS[name]
    done = fail_everywhere(lakes[operation.lake], operation, "after", tmp_path, monkeypatch, CHANGES)
    assert done >= POINTS[name][1]


@pytest.mark.parametrize("mode", ["lost request", "lost answer"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_create_without_an_answer(
    lakes: dict[str, Lake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: str
) -> None:
    operation, creates = OPERATIONS[name], frozenset({"create"})
    done = fail_everywhere(lakes[operation.lake], operation, mode, tmp_path, monkeypatch, creates)
    assert done >= operation.commits


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["after", "refused"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_request_done_or_refused(
    lakes: dict[str, Lake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: str
) -> None:
    operation = OPERATIONS[name]
    assert fail_everywhere(lakes[operation.lake], operation, mode, tmp_path, monkeypatch) >= POINTS[name][0]


# --- every system call ---------------------------------------------------------------------------------------------

CALLS = ["open", "write", "link", "replace", "unlink", "mkdir", "close"]


def crash_at_call(operation: Operation, lake: Lake, at: int, *, after: bool) -> int:
    """The process dies before or after system call number ``at``. How many calls there were."""
    count = 0
    with pytest.MonkeyPatch.context() as patch:

        def watch(real: Callable[..., Any]) -> Callable[..., Any]:
            def watched(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                number = count
                count += 1
                if number > at or (number == at and not after):
                    raise Crash
                answer = real(*args, **kwargs)
                if number == at:
                    raise Crash
                return answer

            return watched

        db = lakelet.connect(lake.root)
        for call in CALLS:
            patch.setattr(os, call, watch(getattr(os, call)))
        with contextlib.suppress(Crash):
            operation.run(db, lake.plan)
    return count


def crash_at_every_call(lake: Lake, operation: Operation, root: Path, *, after: bool) -> int:
    at = 0
    while True:
        copy = lake.copy(root / str(at))
        count = crash_at_call(operation, copy, at, after=after)
        check_all(copy, operation)
        shutil.rmtree(copy.root)
        if count <= at:
            return at
        at += 1


def test_a_crash_before_every_system_call_of_restore(lakes: dict[str, Lake], tmp_path: Path) -> None:
    assert crash_at_every_call(lakes["retired"], OPERATIONS["restore"], tmp_path, after=False) > 10


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_crash_at_every_system_call(lakes: dict[str, Lake], tmp_path: Path, name: str, after: bool) -> None:
    operation = OPERATIONS[name]
    assert crash_at_every_call(lakes[operation.lake], operation, tmp_path, after=after) > 10
