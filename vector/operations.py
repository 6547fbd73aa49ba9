"""What changes an index, as values: rows added, grants, revokes, deletes, tenants dropped; and the state they change.

Every change goes the same way, made by a caller or read from a journal: ``check`` refuses it or finds out what it
needs, ``apply`` does it and does not fail. Both want the writers' lock; with nothing between them, one check is enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from ..lake.errors import LimitExceeded, NotFound
from .labels import LabelTable, coded
from .postings import folded
from .stored import Contents
from .units import Units

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from .building import Settings
    from .compaction import Unit
    from .labels import Label
    from .segment import Segment

__all__ = ["Added", "Deleted", "Dropped", "Operation", "Revised", "State", "Writer"]


class Writer(Protocol):
    """What makes operations durable before they are applied."""

    def run(self, operation: Operation) -> Any:
        """Do the operation; returns what ``apply`` returns once it is on the disk."""


class State:
    """What an index is made of and operations change. ``writer`` is None for an index that is in memory alone."""

    __slots__ = ("labels", "next_id", "settings", "tenanted", "units", "writer")

    def __init__(self, contents: Contents) -> None:
        self.settings, self.labels, self.tenanted, self.next_id, units = contents
        self.units = Units(self.settings, units)
        self.writer: Writer | None = None

    @classmethod
    def empty(cls, settings: Settings) -> State:
        """Without rows or tenants."""
        return cls(Contents(settings, LabelTable(), False, 0, ()))

    def contents(self) -> Contents:
        """All that is stored of it, as it is now."""
        return Contents(self.settings, self.labels, self.tenanted, self.next_id, self.units.now)

    def run(self, operation: Operation) -> Any:
        """Do the operation, or refuse it and change nothing."""
        if self.writer is not None:
            return self.writer.run(operation)
        with self.units.lock:
            self.units.raise_failure()
            operation.check(self)
            return operation.apply(self)

    def known(self, label: Label) -> int:
        """The code of a label; NotFound if it has none."""
        code = self.labels.find(label)
        if code is None:
            raise NotFound(
                f"no tenant {label!r}: no row was ever granted to it, or it was dropped; nothing was changed"
            )
        return code


class Added:
    """Rows with who may see them: ``rows`` checked, ``ids`` None until the next free ones are given to them."""

    def __init__(
        self,
        rows: NDArray[np.float32],
        ids: NDArray[np.int64] | None,
        labels: Sequence[Sequence[Label]],
        attributes: pa.Table | None,
    ) -> None:
        self.rows, self.ids, self.labels, self.attributes = rows, ids, labels, attributes
        self._built: tuple[Segment, LabelTable] | None = None

    def touches(self) -> NDArray[np.int64] | None:
        """Ids that other operations must leave alone meanwhile."""
        return self.ids if self.ids is not None else np.empty(0, np.int64)

    def build(self, state: State) -> None:
        """Make a segment of the rows, which takes long: before the operation is run, and without the lock."""
        with state.units.lock:
            state.units.raise_failure()
            self.check(state)
        assert self.ids is not None
        own = LabelTable()
        grants = coded(self.labels, own)
        self._built = state.units.build(self.rows, self.ids, grants, self.attributes), own

    def check(self, state: State) -> None:
        """Give ids to the rows, or refuse ids that live rows have. Ids given out are not given again."""
        count = len(self.rows)
        if self.ids is None:
            if state.next_id + count > np.iinfo(np.int64).max:
                raise LimitExceeded(
                    f"the next id would be {state.next_id + count - 1:,}, above int64: give ids yourself"
                )
            self.ids = np.arange(state.next_id, state.next_id + count, dtype=np.int64)
        else:
            state.units.refuse_taken(self.ids)
        if count:
            state.next_id = max(state.next_id, int(self.ids.max()) + 1)

    def apply(self, state: State) -> NDArray[np.int64]:
        """Let readers see the rows; their ids."""
        assert self.ids is not None
        if self._built is not None:
            segment, own = self._built
            segment.recode([state.labels.code(label) for label in own.labels])
            state.tenanted = state.tenanted or len(segment.postings.positions) > 0
            state.units.place(segment)
        elif len(self.ids):
            grants = coded(self.labels, state.labels)
            state.tenanted = state.tenanted or len(grants[1]) > 0
            state.units.append(self.rows, self.ids, grants, self.attributes)
        return self.ids


class Revised:
    """Rows granted to a tenant, or hidden from it."""

    def __init__(self, ids: NDArray[np.int64], label: Label, *, granting: bool) -> None:
        self.ids, self.label, self.granting = ids, label, granting
        self._located: list[tuple[Unit, NDArray[np.uint32]]] = []

    def touches(self) -> NDArray[np.int64] | None:
        """Its rows."""
        return self.ids

    def check(self, state: State) -> None:
        """NotFound for an unknown id, or for a tenant that is unknown and would lose rows."""
        self._located = state.units.located(self.ids)
        if not self.granting:
            state.known(self.label)

    def apply(self, state: State) -> None:
        """Replace the lists."""
        code = state.labels.code(self.label) if self.granting else state.known(self.label)
        state.tenanted = state.tenanted or self.granting
        for unit, positions in self._located:
            if self.granting:
                unit.postings.grant(code, positions)
            else:
                unit.postings.revoke(code, positions)


class Deleted:
    """Rows deleted for everybody."""

    def __init__(self, ids: NDArray[np.int64]) -> None:
        self.ids = ids
        self._located: list[tuple[Unit, NDArray[np.uint32]]] = []

    def touches(self) -> NDArray[np.int64] | None:
        """Its rows."""
        return self.ids

    def check(self, state: State) -> None:
        """NotFound for an unknown id."""
        self._located = state.units.located(self.ids)

    def apply(self, state: State) -> None:
        """Clear them."""
        for unit, positions in self._located:
            unit.delete(positions)
        state.units.schedule()


class Dropped:
    """A tenant forgotten, with the rows that nobody else sees unless they are to be kept."""

    def __init__(self, label: Label, *, keep_rows: bool) -> None:
        self.label, self.keep_rows = label, keep_rows

    def touches(self) -> NDArray[np.int64] | None:
        """None: any row may be its, so nothing else is done meanwhile."""
        return None

    def check(self, state: State) -> None:
        """NotFound for an unknown tenant."""
        state.known(self.label)

    def apply(self, state: State) -> int:
        """How many rows were deleted."""
        code = state.known(self.label)
        deleted = 0
        for unit in state.units.now:
            mine = folded(unit.postings.get(code))
            if not self.keep_rows and len(mine):
                others = np.zeros(len(unit), bool)
                for other in unit.postings.codes():
                    if other != code:
                        others[folded(unit.postings.get(other))] = True
                alone = mine[~others[mine]]
                alone = alone[unit.rows.live[alone] > 0]
                deleted += len(alone)
                unit.delete(alone)
            unit.postings.revoke(code, mine)
            unit.drop_views(code)
        state.labels.forget(code)
        state.units.schedule()
        return deleted


Operation: TypeAlias = "Added | Revised | Deleted | Dropped"
