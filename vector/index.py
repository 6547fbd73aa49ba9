"""VectorIndex: one vector index that many tenants share, each searching exactly what it may see.

Writers take a lock and replace values; readers take the tuple of units as it is and go on with it, so they never wait.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from ..lake.errors import InvalidInput, LimitExceeded, NotFound
from ..lake.limits import VECTOR_BULK_ROWS, VECTOR_DIMENSIONS, VECTOR_K
from .attributes import declared, given, nothing_given
from .background import shared_out
from .building import Settings
from .codes import layout
from .conditions import Conditions
from .graph import require
from .ids import checked_ids
from .labels import ALL_TENANTS, PUBLIC, PUBLIC_CODE, Label, LabelTable, checked, coded, parsed
from .metrics import checked_vectors, metric_named
from .postings import count_live, folded
from .predicates import Predicate
from .search import Search, Selector, Step
from .segment import ALL_CODE
from .start import kernels_ready
from .stored import Contents, opened, taken, written
from .units import Units

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..lake.predicate import Params
    from .bound import Bound

__all__ = ["Step", "TenantUsage", "VectorIndex"]

MEMORY: Final = [
    "vectors",
    "codes",
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
    """An index over float32 vectors in memory, shared by tenants.

    ``dim`` of every vector; ``metric`` "l2" (squared Euclid), "cosine" (1 - cos) or "ip" (minus the inner product):
    smaller is nearer. ``attributes`` that conditions may name, as {"year": "int64", "lang": "string"}; the types are
    those of :func:`.attributes.declared`. ``graph`` keeps an HNSW graph as well, with a copy of the vectors, for
    searches over all rows. ``seed`` of everything random. ``threads`` for building, all processors if None.

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
        kernels_ready(attributes=schema is not None)
        self._settings = Settings(
            int(dim), named, layout(int(dim), seed), seed, checked_threads(threads), bool(graph), schema
        )
        self._conditions = Conditions(schema if schema is not None else pa.schema([]))
        self._units = Units(self._settings)
        self._labels = LabelTable()
        self._tenanted = False
        self._next_id = 0

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
        with self._units.lock:
            self._units.raise_failure()
            named = self._fresh_ids(given_ids, len(rows))
            if not len(rows):
                return named
            if len(rows) < VECTOR_BULK_ROWS:
                grants = coded(labels, self._labels)
                self._tenanted = self._tenanted or len(grants[1]) > 0
                self._units.append(rows, named, grants, table)
                return named
        own = LabelTable()
        grants = coded(labels, own)
        segment = self._units.build(rows, named, grants, table)
        with self._units.lock:
            self._units.refuse_taken(named)
            segment.recode([self._labels.code(label) for label in own.labels])
            self._tenanted = self._tenanted or len(segment.postings.positions) > 0
            self._units.place(segment)
        return named

    def grant(self, ids: Any, tenant: Label) -> None:
        """Let a tenant, or PUBLIC, see rows. NotFound when an id is unknown, and then nothing was granted."""
        self._revise(ids, checked(tenant), granting=True)

    def revoke(self, ids: Any, tenant: Label) -> None:
        """Hide rows from a tenant, or from PUBLIC; rows that it did not see stay as they are.

        NotFound when an id or the tenant is unknown, and then nothing was revoked.
        """
        self._revise(ids, checked(tenant), granting=False)

    def delete(self, ids: Any) -> None:
        """Delete rows for everybody. NotFound when an id is unknown, and then nothing was deleted."""
        wanted = checked_ids(ids, None)
        with self._units.lock:
            self._units.raise_failure()
            for unit, positions in self._units.located(wanted):
                unit.delete(positions)
            self._units.schedule()

    def drop_tenant(self, tenant: Label, *, keep_rows: bool = False) -> int:
        """Forget a tenant: revoke all it sees, and delete rows that nobody else sees; how many were deleted.

        ``keep_rows``: delete none; such rows are then seen by ALL_TENANTS alone. NotFound for an unknown tenant.
        """
        label = checked(tenant)
        with self._units.lock:
            self._units.raise_failure()
            code = self._known(label)
            deleted = 0
            for unit in self._units.now:
                mine = folded(unit.postings.get(code))
                if not keep_rows and len(mine):
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
            self._labels.forget(code)
            self._units.schedule()
            return deleted

    def optimize(self) -> None:
        """Merge all rows into one segment now, deleted ones left out: searches are quickest after it."""
        self._units.optimize()

    def wait(self) -> None:
        """Wait until no merge is running or due in the background; raise what one failed with."""
        self._units.wait()

    # Files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file, in place of an older one, whole or not at all; writers go on meanwhile.

        InvalidInput when something else than a lakelet file stands at ``path``; Unavailable when the disk refuses.
        """
        with self._units.lock:
            contents = Contents(self._settings, self._labels, self._tenanted, self._next_id, self._units.now)
            meta, arrays = taken(contents)
        written(path, meta, arrays)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], mmap: bool = True, *, verify: bool = True, threads: int | None = None
    ) -> VectorIndex:
        """Open a saved index. Changes stay in memory until the next :meth:`save`.

        ``mmap``: map the file, so that memory holds what searches touch; else read it. ``verify`` the checksums of all
        bytes, else of the header alone. NotFound; Corrupt when damaged; InvalidInput for another kind of file, or one
        that a newer lakelet wrote.
        """
        contents = opened(path, mmap=mmap, verify=verify, threads=checked_threads(threads))
        schema = contents.settings.schema
        kernels_ready(attributes=schema is not None)
        index = cls.__new__(cls)
        index._conditions = Conditions(schema if schema is not None else pa.schema([]))
        index._settings, index._labels, index._tenanted, index._next_id, units = contents
        index._units = Units(contents.settings, units)
        return index

    # Reading

    def search(
        self,
        queries: Any,
        k: int = 10,
        tenant: Label | Predicate | None = None,
        *,
        where: str | None = None,
        params: Params | None = None,
        ef: int | None = None,
        exact: bool = False,
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
        """
        wanted = checked_vectors(queries, self.dim, self._settings.metric, "queries")
        _check_k(k, ef, threads)
        search = self._search_of(tenant, where, params, k, ef, exact)
        best_ids, best_distances = _nothing_found(len(wanted), k)
        if threads == 1 or len(wanted) < 2:
            search.run(wanted, best_ids, best_distances)
            return best_ids, best_distances
        cuts = np.linspace(0, len(wanted), min(4 * threads, len(wanted)) + 1).astype(int).tolist()

        def some(part: int) -> None:
            at = slice(cuts[part], cuts[part + 1])
            search.run(wanted[at], best_ids[at], best_distances[at])

        shared_out(some, range(len(cuts) - 1), threads)
        return best_ids, best_distances

    def explain(
        self,
        k: int = 10,
        tenant: Label | Predicate | None = None,
        *,
        where: str | None = None,
        params: Params | None = None,
        ef: int | None = None,
        exact: bool = False,
    ) -> list[Step]:
        """How such a search would go: one step for each list it would look through, with its expected cost."""
        _check_k(k, ef, 1)
        return self._search_of(tenant, where, params, k, ef, exact).steps()

    def tenants(self) -> list[TenantUsage]:
        """What each tenant has, PUBLIC included where rows are public; by label in the order of first use.

        Bytes are of vectors, codes, ids and list entries. A row that several tenants share counts in full with each, so
        that one tenant's figures do not depend on what another does.
        """
        settings, usage = self._settings, []
        each = 4 * settings.dim + settings.layout.record_bytes + 16
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

        ``vectors`` are the raw ones, ``values`` those of attributes, ``attributes`` what conditions read instead.
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

    def _fresh_ids(self, given: NDArray[np.int64] | None, count: int) -> NDArray[np.int64]:
        if given is None:
            if self._next_id + count > np.iinfo(np.int64).max:
                raise LimitExceeded(
                    f"the next id would be {self._next_id + count - 1:,}, above int64: give ids yourself"
                )
            given = np.arange(self._next_id, self._next_id + count, dtype=np.int64)
        else:
            self._units.refuse_taken(given)
        if count:
            self._next_id = max(self._next_id, int(given.max()) + 1)
        return given

    def _revise(self, ids: Any, label: Label, *, granting: bool) -> None:
        wanted = checked_ids(ids, None)
        with self._units.lock:
            self._units.raise_failure()
            located = self._units.located(wanted)
            code = self._labels.code(label) if granting else self._known(label)
            self._tenanted = self._tenanted or granting
            for unit, positions in located:
                if granting:
                    unit.postings.grant(code, positions)
                else:
                    unit.postings.revoke(code, positions)

    def _known(self, label: Label) -> int:
        code = self._labels.find(label)
        if code is None:
            raise NotFound(
                f"no tenant {label!r}: no row was ever granted to it, or it was dropped; nothing was changed"
            )
        return code

    # Searching

    def _search_of(
        self,
        tenant: Label | Predicate | None,
        where: str | None,
        params: Params | None,
        k: int,
        ef: int | None,
        exact: bool,
    ) -> Search:
        """A search of the index as it is now; InvalidInput when the tenant or the condition cannot be."""
        return Search(
            self._units.now,
            self._selectors(tenant),
            self._labels,
            None if where is None and not params else self._bound(where, params),
            self._settings,
            k,
            ef,
            exact,
        )

    def _selectors(self, tenant: Label | Predicate | None) -> tuple[Selector, ...]:
        """What to search for a tenant: the codes of lists, or a predicate."""
        if tenant is None:
            if self._tenanted:
                raise InvalidInput(
                    "this index has tenants: say tenant=…, or tenant=lakelet.ALL_TENANTS to search every row"
                )
            return (ALL_CODE,)
        if tenant is ALL_TENANTS:
            return (ALL_CODE,)
        if isinstance(tenant, Predicate):
            return (tenant,)
        code = self._labels.find(tenant)
        return (PUBLIC_CODE,) if code is None or code == PUBLIC_CODE else (code, PUBLIC_CODE)

    def _bound(self, where: str | None, params: Params | None) -> Bound:
        """A condition with its parameters."""
        if where is None:
            raise InvalidInput("params without where: they are the values of a condition's $name or ?")
        return self._conditions.bound(where, params)


def _nothing_found(queries: int, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k nearest of each query before any row was met, (queries, k) both."""
    if queries == 1:  # to copy is quicker than to fill
        ids, distances = _nothing_found_for_one(k)
        return ids.copy(), distances.copy()
    return np.full((queries, k), -1, np.int64), np.full((queries, k), np.inf, np.float32)


@lru_cache(16)
def _nothing_found_for_one(k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.full((1, k), -1, np.int64), np.full((1, k), np.inf, np.float32)


def _check_k(k: Any, ef: Any, threads: Any) -> None:
    if ef is None and type(k) is type(threads) is int and 1 <= k <= VECTOR_K and threads == 1:
        return
    for name, value in (("k", k), ("ef", ef), ("threads", threads)):
        if name == "ef" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= VECTOR_K:
            raise InvalidInput(f"{name} {value!r}: expected a whole number from 1 to {VECTOR_K:,}")


def checked_threads(threads: Any) -> int:
    """The number of threads; None stands for all processors that this process may use."""
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InvalidInput(f"threads {threads!r}: expected 1 or more, or None for all processors")
    return threads
