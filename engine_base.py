"""What every part of the engine stands on: the catalog, the snapshot that is read, and commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lake.errors import InvalidInput

if TYPE_CHECKING:
    from .lake.catalog import Catalog
    from .lake.dependants import Dependants
    from .lake.edit import Edit
    from .lake.snapshot import Snapshot

__all__ = ["EngineBase"]


class EngineBase:
    """One lake at its latest version, or pinned to one."""

    def __init__(self, catalog: Catalog, pinned: Snapshot | None = None) -> None:
        """Use :func:`connect`. ``pinned`` is the snapshot that every call reads, or None for the latest."""
        self._catalog = catalog
        self._pinned = pinned

    def __repr__(self) -> str:
        """For people."""
        at = "" if self._pinned is None else f" at version {self._pinned.version}"
        return f"<lakelet.Engine {self.uri}{at}>"

    def close(self) -> None:
        """Wait for checkpoints that are being written, write read counts and give up the SQL session.

        :meth:`at` shares them.
        """
        if self._pinned is None:
            self._catalog.close()

    @property
    def uri(self) -> str:
        """Where the lake is, without credentials."""
        return self._catalog.store.uri

    @property
    def version(self) -> int:
        """The latest version, or the one this engine is pinned to; 0 is the empty lake."""
        return self._snapshot().version

    def _snapshot(self) -> Snapshot:
        return self._catalog.log.latest() if self._pinned is None else self._pinned

    def _base(self) -> Snapshot:
        if self._pinned is not None:
            raise InvalidInput(
                f"this engine is pinned to version {self._pinned.version} and only reads; write through connect()"
            )
        self._catalog.log.check_writable()  # before anything is written that no version would name
        return self._catalog.log.latest()

    def _commit(self, edit: Edit, operation: str, base: Snapshot, dependants: Dependants = "restore") -> int:
        return self._catalog.commit(edit, operation, base, dependants).version
