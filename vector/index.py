"""VectorIndex: one vector index that many tenants share, each searching exactly what it may see.

Writers take a lock and replace values; readers take the tuple of units as it is and go on with it, so they never wait.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from ..lake.errors import InvalidInput
from ..lake.limits import VECTOR_BULK_ROWS, VECTOR_DIMENSIONS
from .attributes import declared, given, nothing_given
from .building import Settings
from .codes import layout
from .conditions import Conditions
from .durable import Durable
from .fine import checked_bits, checked_kept
from .folder import Folder, refuse_other
from .graph import require
from .ids import checked_ids
from .labels import PUBLIC, Label, checked, parsed
from .metrics import checked_vectors, metric_named
from .operations import Added, Deleted, Dropped, Operation, Revised, State
from .postings import count_live, folded
from .reading import Reading
from .search import Step
from .start import kernels_ready
from .stored import opened, taken, written

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..lake.predicate import Params
    from .predicates import Predicate

__all__ = ["Step", "TenantUsage", "VectorIndex"]

MEMORY: Final = [
    "vectors",
    "codes",
    "quantised",
    "ids",
    "live",
    "tree",
    "graph",
    "postings",
    "subtrees",
    "packed",
    "attributes",
    "values",
]


class TenantUsage(NamedTuple):
    """What one tenant has in an index: live rows granted to it, and the bytes that they take, shared or not."""

    label: Label
    rows: int
    bytes: int


class VectorIndex:
    """An index over float32 vectors in memory, shared by tenants; :meth:`open` keeps one in a folder as well.

    ``dim`` of every vector; ``metric`` "l2" (squared Euclid), "cosine" (1 - cos) or "ip" (minus the inner product):
    smaller is nearer. ``attributes`` that conditions may name, as {"year": "int64", "lang": "string"}; the types are
    those of :func:`.attributes.declared`. ``graph`` keeps the links of an HNSW graph as well, for searches over all or
    many rows. ``bits``, 1 to 8 a dimension in the mean: codes that rank rows in place of their vectors, of which a
    search then reads the best few's alone; with ``keep_vectors=False`` rows in segments have no vectors. ``seed`` of
    everything random. ``threads`` for building, all processors if None.

    Every method may be called from any thread. Searches never wait for writers; writers take turns. Rows are merged
    into segments in the background; :meth:`wait` waits for that.
    """

    def __init__(
        self,
        dim: int,
        metric: str = "l2",
        *,
        attributes: Any = None,
        graph: bool = False,
        bits: int | None = None,
        keep_vectors: bool = True,
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        if not isinstance(dim, int | np.integer) or isinstance(dim, bool) or not 1 <= dim <= VECTOR_DIMENSIONS:
            raise InvalidInput(f"dim {dim!r}: expected a whole number from 1 to {VECTOR_DIMENSIONS:,}")
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise InvalidInput(f"seed {seed!r}: expected a whole number from 0 on")
        seed = int(seed)
        if graph:
            require()
        named, schema = metric_named(metric), None if nothing_given(attributes) else declared(attributes)
        count, kept = checked_bits(bits), checked_kept(keep_vectors, bits)
        threads = checked_threads(threads)
        kernels_ready(attributes=schema is not None, graph=bool(graph), bits=count is not None)
        settings = Settings(int(dim), named, layout(int(dim), seed), seed, threads, bool(graph), schema, count, kept)
        self._hold(State.empty(settings))

    def _hold(self, state: State) -> None:
        schema = state.settings.schema
        self._conditions = Conditions(schema if schema is not None else pa.schema([]))
        self._state, self._settings, self._labels, self._units = state, state.settings, state.labels, state.units
        self._durable: Durable | None = None

    # What it is

    @property
    def dim(self) -> int:
        """Dimensions of every vector."""
        return self._settings.dim

    @property
    def metric(self) -> str:
        """The metric's name: l2, cosine or ip."""
        return self._settings.metric.name.lower()

    def __len__(self) -> int:
        """Live rows."""
        return sum(int(np.count_nonzero(unit.rows.live[: len(unit)])) for unit in self._units.now)

    def __repr__(self) -> str:
        return (
            f"VectorIndex(dim={self.dim}, metric={self.metric!r}, rows={len(self):,}, tenants={len(self.tenants()):,})"
        )

    # Writing

    def add(self, vectors: Any, ids: Any = None, tenants: Any = None, attributes: Any = None) -> NDArray[np.int64]:
        """Add rows and say who may see them; the ids of the rows, int64 (n,).

        ``vectors`` float32 (n, dim), or (dim,) for one. ``ids`` distinct int64 that no live row has, or None for the
        next free ones. ``tenants`` one label for all rows, or for each row a label, a list of labels, or None; a label
        is an int, a str, or PUBLIC. ``attributes`` a dict from name to one value a row, or an Arrow table; those left
        out are NULL. InvalidInput leaves the index as it was.

        A large batch becomes a segment before this returns; a small one does so later, in the background.
        """
        rows = checked_vectors(vectors, self.dim, self._settings.metric, "vectors")
        labels = parsed(tenants, len(rows))
        given_ids = None if ids is None else checked_ids(ids, len(rows))
        table = self._given(attributes, len(rows))
        if not len(rows):
            return np.empty(0, np.int64)
        added: NDArray[np.int64] = self._run(Added(rows, given_ids, labels, table))
        return added

    def grant(self, ids: Any, tenant: Label) -> None:
        """Let a tenant, or PUBLIC, see rows. NotFound when an id is unknown, and then nothing was granted."""
        label = checked(tenant)
        self._run(Revised(checked_ids(ids, None), label, granting=True))

    def revoke(self, ids: Any, tenant: Label) -> None:
        """Hide rows from a tenant, or from PUBLIC; rows that it did not see stay as they are.

        NotFound when an id or the tenant is unknown, and then nothing was revoked.
        """
        label = checked(tenant)
        self._run(Revised(checked_ids(ids, None), label, granting=False))

    def delete(self, ids: Any) -> None:
        """Delete rows for everybody. NotFound when an id is unknown, and then nothing was deleted."""
        self._run(Deleted(checked_ids(ids, None)))

    def drop_tenant(self, tenant: Label, *, keep_rows: bool = False) -> int:
        """Forget a tenant: revoke all it sees, and delete rows that nobody else sees; how many were deleted.

        ``keep_rows``: delete none; such rows are then seen by ALL_TENANTS alone. NotFound for an unknown tenant.
        """
        deleted: int = self._run(Dropped(checked(tenant), keep_rows=keep_rows))
        return deleted

    def optimize(self) -> None:
        """Merge all rows into one segment now, deleted ones left out: searches are quickest after it."""
        self._units.optimize()

    def wait(self) -> None:
        """Wait until no merge is running or due in the background; raise what one failed with."""
        self._units.wait()

    # Files

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        dim: int | None = None,
        metric: str | None = None,
        *,
        attributes: Any = None,
        graph: bool = False,
        bits: int | None = None,
        keep_vectors: bool | None = None,
        seed: int = 0,
        threads: int | None = None,
        mmap: bool = True,
        verify: bool = True,
    ) -> VectorIndex:
        """Open the index that is kept in a folder, or make one, which needs ``dim``; ``metric`` is "l2" then if None.

        Every change is on the disk before its call returns, and is seen by searches once it is. :meth:`close` lets
        other processes have the folder. For an index that is there, ``dim``, ``metric``, ``attributes``, ``bits`` and
        ``keep_vectors`` must be its own or left out (InvalidInput), and ``graph`` and ``seed`` are its own. Unavailable
        when it is open already, or the disk refuses; Corrupt when damaged.
        """
        with Folder(path) as folder:
            if folder.current is not None:
                index = cls.load(folder.snapshot(folder.current.generation), mmap, verify=verify, threads=threads)
                refuse_other(index._settings, folder.path, dim, metric, attributes, checked_bits(bits), keep_vectors)
            elif dim is None:
                raise InvalidInput(f"there is no index at {folder}; say dim=… to make one")
            else:
                more = {"attributes": attributes, "graph": graph, "bits": bits, "seed": seed, "threads": threads}
                index = cls(dim, metric or "l2", keep_vectors=keep_vectors is None or keep_vectors, **more)
            index._durable = Durable(folder, index._state, index._run)
        return index

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write the index to one file, in place of an older one, whole or not at all; writers go on meanwhile.

        Without ``path``: write a new snapshot into the folder that the index was opened in, and begin its journal anew.
        InvalidInput when something else than a lakelet file stands at ``path``; Unavailable when the disk refuses.
        """
        if path is None:
            if self._durable is None:
                raise InvalidInput("save() without a path is for an index of VectorIndex.open(); say where to save")
            self._durable.checkpoint()
            return
        with self._units.lock:
            meta, arrays = taken(self._state.contents())
        written(path, meta, arrays)

    def close(self) -> None:
        """Let other processes open the folder; changes are refused then. Nothing to do for an index in memory alone."""
        if self._durable is not None:
            self._durable.close()

    def __enter__(self) -> VectorIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], mmap: bool = True, *, verify: bool = True, threads: int | None = None
    ) -> VectorIndex:
        """Open a saved index. Changes stay in memory until the next :meth:`save`.

        ``mmap``: map the file, so that memory holds what searches touch; else read it. ``verify`` the checksums of all
        bytes, else of the header alone. NotFound; Corrupt when damaged; InvalidInput for another kind of file, or one
        that a newer lakelet wrote.
        """
        if os.path.isdir(path):
            raise InvalidInput(
                f"{os.fspath(path)!r} is a folder: VectorIndex.open() opens an index that is kept in one"
            )
        contents = opened(path, mmap=mmap, verify=verify, threads=checked_threads(threads))
        settings = contents.settings
        kernels_ready(attributes=settings.schema is not None, graph=settings.graph, bits=settings.bits is not None)
        index = cls.__new__(cls)
        index._hold(State(contents))
        return index

    # Reading

    def search(
        self,
        queries: Any,
        k: int = 10,
        tenant: Label | Predicate | None = None,
        where: str | None = None,
        params: Params | None = None,
        *,
        ef: int | None = None,
        exact: bool = False,
        rerank: bool | None = None,
        threads: int = 1,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k nearest rows that a tenant may see: ids int64 (m, k), distances float32 (m, k), nearest first.

        ``queries`` float32 (m, dim), or (dim,) for one. ``tenant`` a label, a :class:`Predicate` over labels, or
        ALL_TENANTS; needed once any row has a tenant. A tenant without rows sees the public ones. Fewer than k visible
        rows are padded with the id -1 at the distance inf.

        ``where`` a condition over the attributes, in SQL as :meth:`.Table.scan` takes it, ``params`` for its ``$name``
        or ``?``: rows for which it is not true are never returned, and all others that belong there are.

        ``ef`` rows are ranked by their true distance (default: fitted for a recall of .96), and the rows scored before
        that grow with it: more finds more and takes longer. ``exact`` compares all rows. ``threads`` share a batch.

        In an index with ``bits`` the ``ef`` rows are ranked by their codes, and the best few of them by their vectors
        where these are kept. ``rerank=False`` leaves that out: order and distances are then estimates by codes.
        """
        return self._reading().search(
            queries, k, tenant, where, params, ef=ef, exact=exact, rerank=rerank, threads=threads
        )

    def explain(
        self,
        k: int = 10,
        tenant: Label | Predicate | None = None,
        where: str | None = None,
        params: Params | None = None,
        *,
        ef: int | None = None,
        exact: bool = False,
    ) -> list[Step]:
        """How such a search would go: one step for each list it would look through, with its expected cost."""
        return self._reading().explain(k, tenant, where, params, ef=ef, exact=exact)

    def tenants(self) -> list[TenantUsage]:
        """What each tenant has, PUBLIC included where rows are public; by label in the order of first use.

        Bytes are of vectors, codes, ids and list entries. A row that several tenants share counts in full with each, so
        that one tenant's figures do not depend on what another does.
        """
        settings, usage = self._settings, []
        fine_bytes = 0 if settings.bits is None else -(-settings.bits * settings.dim // 8)
        vector_bytes = 4 * settings.dim if settings.keep_vectors else 0
        each = vector_bytes + fine_bytes + settings.layout.record_bytes + 16
        with self._units.lock:
            known = self._labels.known()
            for label, code in known:
                rows = sum(
                    count_live(folded(unit.postings.get(code)), unit.rows.live) for unit in self._units.now if len(unit)
                )
                if rows or label is not PUBLIC:
                    usage.append(TenantUsage(label, rows, rows * each))
        return usage

    def memory(self) -> dict[str, int]:
        """Bytes in memory by what they are for, and their total.

        ``vectors`` are the raw ones, ``quantised`` the codes of ``bits`` with what reads them, ``values`` those of
        attributes, ``attributes`` what conditions read instead.
        """
        total: dict[str, int] = dict.fromkeys(MEMORY, 0)
        for unit in self._units.now:
            for what, nbytes in unit.nbytes().items():
                total[what] += nbytes
        return total | {"total": sum(total.values())}

    def _given(self, attributes: Any, rows: int) -> pa.Table | None:
        """The attributes of new rows as a table; None if the index has none."""
        schema = self._settings.schema
        if schema is None and nothing_given(attributes):
            return None
        return given(attributes, self._conditions.schema, rows)

    def _run(self, operation: Operation) -> Any:
        """Do what a caller asked for, or a journal holds."""
        if isinstance(operation, Added) and len(operation.rows) >= VECTOR_BULK_ROWS:
            operation.build(self._state)
        return self._state.run(operation)

    def _reading(self) -> Reading:
        """The index as it is now."""
        return Reading(self._units.now, self._labels, self._state.tenanted, self._conditions, self._settings)


def checked_threads(threads: Any) -> int:
    """The number of threads; None stands for all processors that this process may use."""
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InvalidInput(f"threads {threads!r}: expected 1 or more, or None for all processors")
    return threads
