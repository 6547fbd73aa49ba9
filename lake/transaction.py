"""Several edits, one commit: each is planned on what those before it made; what was read becomes a requirement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .changes import Change, FilesPresent, NameFree, Requirement, TableUnchanged
from .edit import Edit, plan_delete, plan_write
from .errors import InvalidInput
from .merge import plan_merge
from .naming import find_table, plan_drop, plan_pin, plan_rename, plan_view
from .snapshot import OwnedTable, Snapshot, apply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb

    from .catalog import Catalog
    from .dependants import Dependants
    from .session import Parameters
    from .snapshot import TableEntry
    from .table import Table

__all__ = ["Transaction"]


class Transaction:
    """Edits of several tables that are committed together, or not at all.

    It sees the lake as it was when it began, plus its own edits. At the end of its ``with`` block everything becomes
    one version; when the block raises, nothing does. A table that it read, and that another commit changed meanwhile,
    makes the commit a Conflict. Not for use from several threads at once.
    """

    def __init__(self, catalog: Catalog, dependants: Dependants = "refuse") -> None:
        self._dependants = dependants
        self._catalog = catalog
        self._base = catalog.log.latest()
        self._working = self._base
        self._edits: list[Edit] = []
        self._reads: dict[str, Requirement] = {}
        self._ended = False

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None and not self._ended:
            self.commit()
        self._ended = True

    # --- reading -------------------------------------------------------------------------------------------------

    def table(self, name: str) -> Table:
        """The table as this transaction sees it; commits of others to it make ours a Conflict."""
        self._check_open()
        self._read(find_table(self._working, name))
        return self._catalog.table(self._working, name)

    def sql(self, query: str, params: Parameters = None, /, **named: Any) -> duckdb.DuckDBPyRelation:
        """DuckDB SQL over what this transaction sees; the tables it names count as read."""
        self._check_open()
        return self._catalog.sql(self._working, query, named or params, self._read)

    def _read(self, entry: TableEntry) -> None:
        if entry.table_id in self._base.tables:
            self._reads[entry.table_id] = TableUnchanged(entry.table_id, self._base.version, rows=True, name=True)

    # --- editing -------------------------------------------------------------------------------------------------

    def write(self, name: str, data: Any, mode: str = "create") -> None:
        """As :meth:`lakelet.Engine.write`."""
        self._add(plan_write(self._snapshot(), self._catalog.store, name, data, mode))

    def merge(self, name: str, data: Any, on: Sequence[str]) -> None:
        """As :meth:`lakelet.Engine.merge`."""
        self._add(plan_merge(self._snapshot(), self._catalog.store, name, data, on))

    def delete(self, name: str, where: str, params: Mapping[str, Any] | Sequence[Any] | None = None) -> None:
        """As :meth:`lakelet.Engine.delete`."""
        self._add(plan_delete(self._snapshot(), self._catalog.store, name, where, params))

    def rename(self, name: str, new_name: str) -> None:
        """As :meth:`lakelet.Engine.rename`."""
        self._add(plan_rename(self._snapshot(), name, new_name))

    def drop(self, name: str) -> None:
        """As :meth:`lakelet.Engine.drop`."""
        self._add(plan_drop(self._snapshot(), name))

    def pin(self, name: str, kind: str = "keep", *, owner: str = "", reason: str = "") -> None:
        """As :meth:`lakelet.Engine.pin`."""
        self._add(plan_pin(self._snapshot(), name, kind, owner, reason))

    def create_view(self, name: str, sql: str) -> None:
        """As :meth:`lakelet.Engine.create_view`."""
        edit = plan_view(self._snapshot(), name, sql)
        self._catalog.check_view(self._working, sql)
        self._add(edit)

    def commit(self) -> int:
        """Commit now and end the transaction; returns the version. Leaving the ``with`` block does the same."""
        self._check_open()
        self._ended = True
        changes, requirements = self._gathered()
        single = self._edits[0] if len(self._edits) == 1 else None
        begun_us = min((e.begun_us for e in self._edits if e.begun_us is not None), default=None)
        edit = Edit(changes, requirements, rebase=single.rebase if single else None, begun_us=begun_us)
        return self._catalog.commit(edit, "transaction", self._base, self._dependants).version

    # --- what is committed ---------------------------------------------------------------------------------------

    def _snapshot(self) -> Snapshot:
        self._check_open()
        return self._working

    def _check_open(self) -> None:
        if self._ended:
            raise InvalidInput("this transaction has ended; begin another one by transaction()")

    def _add(self, edit: Edit) -> None:
        # our own edits do not age the tables: requirements keep comparing with the version we began from
        at = self._working
        self._working = apply(at, edit.changes, version=at.version, timestamp_us=at.timestamp_us)
        self._edits.append(edit)

    def _gathered(self) -> tuple[tuple[Change, ...], tuple[Requirement, ...]]:
        """All changes in order, and the requirements that speak of the lake as it was before us."""
        changes = tuple(change for edit in self._edits for change in edit.changes)
        requirements: dict[Requirement, None] = dict.fromkeys(self._reads.values())
        for edit in self._edits:
            for requirement in edit.requirements:
                kept = self._about_base(requirement)
                if kept is not None:
                    requirements[kept] = None
        return changes, tuple(requirements)

    def _about_base(self, requirement: Requirement) -> Requirement | None:
        """What the requirement asks of the lake as it was before us; None when that is nothing."""
        base = self._base
        if isinstance(requirement, NameFree):
            # a name that we freed ourselves is guarded by the requirement on the table that had it
            taken = requirement.name in base.names or requirement.name in base.views
            return None if taken else requirement
        entry = base.tables.get(requirement.table_id)
        if entry is None:
            return None
        if isinstance(requirement, FilesPresent):
            files = entry.files if isinstance(entry, OwnedTable) else {}
            old = tuple(file_id for file_id in requirement.file_ids if file_id in files)
            return FilesPresent(requirement.table_id, old) if old else None
        return requirement
