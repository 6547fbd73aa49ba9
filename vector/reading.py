"""What searches read, as it was at one moment, and how a caller's question becomes a search of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..lake.errors import InvalidInput
from ..lake.limits import VECTOR_K
from .background import shared_out
from .labels import ALL_TENANTS, PUBLIC_CODE, Label
from .metrics import checked_vectors
from .predicates import Predicate
from .search import Search, Selector, Step, nothing_found
from .segment import ALL_CODE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..lake.predicate import Params
    from .bound import Bound
    from .building import Settings
    from .compaction import Unit
    from .conditions import Conditions
    from .labels import LabelTable

__all__ = ["Reading"]


class Reading(NamedTuple):
    """Units, and what their rows' labels and attributes mean. ``tenanted``: a search must say for whom it is."""

    units: tuple[Unit, ...]
    labels: LabelTable
    tenanted: bool
    conditions: Conditions
    settings: Settings

    def search(
        self,
        queries: Any,
        k: int,
        tenant: Label | Predicate | None,
        where: str | None,
        params: Params | None,
        *,
        ef: int | None = None,
        exact: bool = False,
        rerank: bool | None = None,
        threads: int = 1,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As :meth:`.VectorIndex.search`."""
        wanted = checked_vectors(queries, self.settings.dim, self.settings.metric, "queries")
        _check_k(k, ef, threads)
        search = self._search_of(tenant, where, params, k, ef, exact, self._reranks(rerank))
        best_ids, best_distances = nothing_found(len(wanted), k)
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
        k: int,
        tenant: Label | Predicate | None,
        where: str | None,
        params: Params | None,
        *,
        ef: int | None = None,
        exact: bool = False,
    ) -> list[Step]:
        """As :meth:`.VectorIndex.explain`."""
        _check_k(k, ef, 1)
        return self._search_of(tenant, where, params, k, ef, exact).steps()

    def _search_of(
        self,
        tenant: Label | Predicate | None,
        where: str | None,
        params: Params | None,
        k: int,
        ef: int | None,
        exact: bool,
        rerank: bool = True,
    ) -> Search:
        """InvalidInput when the tenant or the condition cannot be."""
        return Search(
            self.units,
            self._selectors(tenant),
            self.labels,
            None if where is None and not params else self._bound(where, params),
            self.settings,
            k,
            ef,
            exact,
            rerank,
        )

    def _reranks(self, rerank: Any) -> bool:
        """Whether true distances decide; None stands for wherever there are vectors."""
        settings = self.settings
        if rerank is None or rerank is settings.keep_vectors:
            return settings.keep_vectors
        if not isinstance(rerank, bool):
            raise InvalidInput(f"rerank {rerank!r}: expected True, False, or None for True where vectors are kept")
        if rerank:
            raise InvalidInput(
                "rerank=True needs vectors, and this index has keep_vectors=False; leave rerank out, or make the index "
                "with keep_vectors=True"
            )
        if settings.bits is None:
            raise InvalidInput(
                "rerank=False ranks by codes of so many bits, and this index has none; say bits=4 for it"
            )
        return False

    def _selectors(self, tenant: Label | Predicate | None) -> tuple[Selector, ...]:
        """What to search for a tenant: the codes of lists, or a predicate."""
        if tenant is None:
            if self.tenanted:
                raise InvalidInput(
                    "this index has tenants: say tenant=…, or tenant=lakelet.ALL_TENANTS to search every row"
                )
            return (ALL_CODE,)
        if tenant is ALL_TENANTS:
            return (ALL_CODE,)
        if isinstance(tenant, Predicate):
            return (tenant,)
        code = self.labels.find(tenant)
        return (PUBLIC_CODE,) if code is None or code == PUBLIC_CODE else (code, PUBLIC_CODE)

    def _bound(self, where: str | None, params: Params | None) -> Bound:
        """A condition with its parameters."""
        if where is None:
            raise InvalidInput("params without where: they are the values of a condition's $name or ?")
        return self.conditions.bound(where, params)


def _check_k(k: Any, ef: Any, threads: Any) -> None:
    if ef is None and type(k) is type(threads) is int and 1 <= k <= VECTOR_K and threads == 1:
        return
    for name, value in (("k", k), ("ef", ef), ("threads", threads)):
        if name == "ef" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= VECTOR_K:
            raise InvalidInput(f"{name} {value!r}: expected a whole number from 1 to {VECTOR_K:,}")
