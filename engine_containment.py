"""The engine's part that finds redundant tables, retires them and gets them back."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from .engine_base import EngineBase
from .lake.errors import InvalidInput
from .lake.limits import CONTAINMENT_MEMORY_BYTES
from .lake.naming import find_table, plan_pin, plan_unpin
from .lake.progress import shown
from .lake.restoring import plan_restore
from .lake.snapshot import AttachedTable, OwnedTable, Snapshot

if TYPE_CHECKING:
    from .containment.graph import Graph
    from .containment.plan import Plan
    from .containment.retirement import Retirement
    from .containment.usage import Observed
    from .containment.verdicts import VerdictStore
    from .lake.catalog import Catalog
    from .lake.progress import Progress

__all__ = ["ContainmentEngine"]


class ContainmentEngine(EngineBase):
    """Containment, the retirement plan, retire and restore."""

    def __init__(self, catalog: Catalog, pinned: Snapshot | None = None) -> None:
        """As of :class:`EngineBase`."""
        super().__init__(catalog, pinned)
        self._verdicts: VerdictStore | None = None

    # --- containment ---------------------------------------------------------------------------------------------

    def containment(
        self,
        tables: Sequence[str] | None = None,
        backend: Literal["local"] = "local",
        min_fraction: float = 1.0,
        *,
        memory_bytes: int = CONTAINMENT_MEMORY_BYTES,
        budget_bytes: int | None = None,
        extra_columns: int = 0,
        progress: Progress | None = None,
    ) -> Graph:
        """Which tables are contained in which others, exactly; see docs/containment.md.

        ``tables`` restricts it to these names. ``min_fraction`` below 1 also finds pairs of which that share of the
        child's distinct rows is in the parent. ``memory_bytes`` bounds what is held before spilling to disk;
        ``budget_bytes`` bounds what is read: then the largest possible savings are looked at first, and what is left
        is reported as open. ``extra_columns`` above 0 also looks for tables that are contained but for so many columns
        of their own (``graph.wider``), for the plan. What was proven is kept beside the catalog, so that a later run
        costs what changed.
        """
        from .containment.finder import find
        from .containment.wider import find_wider

        if backend != "local":
            raise InvalidInput(f"found the backend {backend!r}, expected 'local'")
        snapshot = self._snapshot()
        names = sorted(snapshot.names) if tables is None else list(tables)
        found = self._catalog.tables(snapshot, names)
        with shown(progress) as report:
            search = partial(
                find,
                seed=bytes.fromhex(snapshot.hash_seed),
                memory_bytes=memory_bytes,
                budget_bytes=budget_bytes,
                verdicts=self._verdict_store(snapshot),
                progress=report,
            )
            graph = search(found, min_fraction=min_fraction)
            wider = find_wider(graph, extra_columns, search)
        return replace(graph, observe=partial(self._observed, snapshot), wider_pairs=wider)

    def _observed(self, snapshot: Snapshot) -> Observed:
        """What the catalog knows of the tables' use; attached tables are read by others too, so that is unknown."""
        from .containment.usage import Observed, counted_reads, overwrites_of, rewrites_of

        owned = {t.table_id: t.name for t in snapshot.tables.values() if isinstance(t, OwnedTable)}
        now = time.time()
        today = dt.datetime.fromtimestamp(now, dt.UTC).date()
        history = self._catalog.log.history()
        counts = self._catalog.read_counts(since_day=today - dt.timedelta(days=31))
        return Observed(
            counted_reads(owned, counts, today),
            rewrites_of(history, int(now * 1e6)),
            overwrites_of(history, int(now * 1e6)),
            {table.name: str(table.pin) for table in snapshot.tables.values() if table.pin is not None},
            {table.name: table.created_version for table in snapshot.tables.values()},
        )

    def _verdict_store(self, snapshot: Snapshot) -> VerdictStore:
        from .containment.verdicts import VerdictStore

        if self._verdicts is None:
            store = None if self._catalog.log.read_only else self._catalog.store
            self._verdicts = VerdictStore(store, bytes.fromhex(snapshot.hash_seed))
        return self._verdicts

    # --- retirement ----------------------------------------------------------------------------------------------

    def pin(self, name: str, kind: Literal["keep", "legal-hold"] = "keep", *, owner: str = "", reason: str = "") -> int:
        """Say that a table must stay; returns the version.

        "keep": it is never retired. "legal-hold": nor does any row of it leave: delete, merge, overwrite and drop are
        refused. ``owner`` and ``reason`` are shown to whoever asks. It replaces the pin that there is.
        """
        base = self._base()
        return self._commit(plan_pin(base, name, kind, owner, reason), f"pin {name}", base)

    def unpin(self, name: str) -> int:
        """Lift a table's pin; returns the version."""
        base = self._base()
        return self._commit(plan_unpin(base, name), f"unpin {name}", base)

    def retire(
        self,
        plan: Plan,
        *,
        approvals: str | os.PathLike[str] | None = None,
        memory_bytes: int = CONTAINMENT_MEMORY_BYTES,
        progress: Progress | None = None,
    ) -> Retirement:
        """Rebuild the plan's tables from their parents from now on, in one commit, once each was proven bit by bit.

        Nothing is deleted: files leave by :meth:`vacuum`, those of attached tables by :meth:`delete_retired`. Retired
        tables read as before. ``approvals`` is a TOML file that names, for each table to retire, an owner and a
        reason; a table that it lacks makes the call InvalidInput. Tables that changed meanwhile, or would not pay, are
        left alone and listed. Raises Conflict when a table changed since the graph was made, InvalidInput for one that
        is pinned, and what reading raises; nothing is changed then.
        """
        from .containment.approval import check_approvals
        from .containment.retirement import check_unchanged, plan_retirement

        base = self._base()
        names = sorted({name for pair in plan.pairs for name in pair})
        tables = dict(zip(names, self._catalog.tables(base, names), strict=True))
        check_unchanged(base, plan.candidates, tables, plan.pairs)
        if approvals is not None:
            check_approvals(approvals, [child for child, _ in plan.pairs])
        with shown(progress) as report:
            found = plan_retirement(
                base,
                self._catalog.store,
                lambda name: tables[name] if name in tables else self._catalog.table(base, name),
                plan.pairs,
                memory_bytes=memory_bytes,
                progress=report,
            )
        if not found.edit.changes:
            return replace(found, version=base.version)
        version = self._commit(found.edit, "retire", base)
        gone = {name for name, _ in found.skipped}  # some only when the commit met others
        return replace(found, version=version, retired=tuple(one for one in found.retired if one.table not in gone))

    def restore(self, name: str) -> int:
        """Write a retired table's rows out again as files of its own; returns the version. Its rows stay as they are.

        Raises NotFound or InvalidInput when there is no such table, and Corrupt or NotFound, naming table and file,
        when what it is rebuilt from is damaged; nothing is changed then.
        """
        base = self._base()
        return self._commit(plan_restore(base, self._catalog.store, name), f"restore {name}", base)

    def delete_retired(self, name: str, *, dry_run: bool = False) -> tuple[str, ...]:
        """Delete the files that a retired table was attached to, once more compared with it bit by bit; their paths.

        With ``dry_run`` only the comparison is made. Raises NotFound when the table was not attached, Conflict when the
        files changed since, Corrupt or InvalidInput when the table is not what they hold or another attached table has
        them too; nothing is deleted then.
        """
        from .containment.manifest import delete_files

        base = self._base()
        entry, table = self._owned(base, name), self._catalog.table(base, name)
        attached = [other for other in base.tables.values() if isinstance(other, AttachedTable)]
        store, attachments = self._catalog.store, self._catalog.attachments
        return delete_files(store, entry.table_id, table, attachments, attached, dry_run=dry_run)

    def export_view(self, name: str, folder: str | os.PathLike[str]) -> str:
        """Write a table as plain DuckDB SQL over its files, usable without lakelet; returns the path of ``name.sql``.

        Positions of rebuilt rows become Parquet files beside it. The view holds as long as the lake keeps this version.
        """
        from .lake.export import export_view

        return export_view(self._catalog.store, self._owned(self._snapshot(), name), folder)

    def _owned(self, snapshot: Snapshot, name: str) -> OwnedTable:
        entry = find_table(snapshot, name)
        if not isinstance(entry, OwnedTable):
            raise InvalidInput(f"table {name!r} is attached; this needs one of the lake's own: import_table({name!r})")
        return entry
