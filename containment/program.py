"""The cheapest set of tables to keep, with proof: OPT-RET of R2D2 (arXiv 2312.13427) as an integer program.

Each table is kept, at a cost, or rebuilt from one parent that is kept, at the cost of that edge. Parents that are kept
in any case leave the program together with their edges, which mostly falls apart after that. What is left is solved
part by part, the small ones first: by enumeration where few tables can serve others, else by HiGHS from a greedy start.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..lake.errors import InvalidInput
from .greedy import greedy
from .parts import Given, Part, Reduced

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Solution", "solve"]

_ENUMERATED: Final = 8
"""Parts in which at most so many tables can serve others are solved by trying all of their subsets."""

_MOST_ENTRIES: Final = 1 << 21
"""Subsets times tables that enumeration may hold at a time."""

_SCALE: Final = 100.0
"""What a table of mean cost costs within HiGHS, whose tolerances of 1e-7 and 1e-6 are absolute."""

_ROUNDING: Final = 1e-9
"""A gap below this fraction of a part's cost is rounding."""

_FEASIBLE: Final = 2  # HiGHS: the primal solution status of a solution that keeps all constraints


@dataclass(frozen=True)
class Solution:
    """Which tables to keep, and from what to rebuild the others.

    ``parent``: int64 of shape (n,), -1 where the table is kept, else the table it is rebuilt from, which is kept.
    ``cost``: of all tables together, in the unit of the costs given. ``bound``: no choice costs less, up to the
    tolerances of floating point. ``seconds``: wall time. ``components``: the sets of two or more tables that edges
    worth their cost connect.
    """

    parent: NDArray[np.int64]
    cost: float
    bound: float
    seconds: float
    components: int

    @property
    def gap(self) -> float:
        """How far the cost may be from the least, as a fraction of the cost; 0 where it is proven to be the least."""
        return (self.cost - self.bound) / max(abs(self.cost), np.finfo(np.float64).tiny)


def solve(
    keep_cost: NDArray[np.float64],
    child: NDArray[np.int64],
    parent: NDArray[np.int64],
    edge_cost: NDArray[np.float64],
    *,
    must_keep: NDArray[np.bool_] | None = None,
    time_limit_seconds: float = 60.0,
    max_gap: float = 1e-6,
) -> Solution:
    """Return the cheapest choice of tables to keep, or the best that was found in time and how good it is at least.

    ``keep_cost``: float64 of shape (n,), of keeping each table. ``child``, ``parent``: int64 of shape (m,), tables
    from 0 to n - 1; the child can be rebuilt from the parent for ``edge_cost``, float64 of shape (m,). Of parallel
    edges the cheapest counts, loops do not. ``must_keep``: bool of shape (n,), tables to keep at any cost.

    ``time_limit_seconds`` is for all parts together; 0 leaves the greedy choice, and the exact one where a few
    subsets are all there is to try. The solver checks it between its steps and may take some tenths of a second more.
    ``max_gap``: the gap that is good enough. The same call returns the same choice, unless the time limit ends it.

    Raises :exc:`~lakelet.lake.errors.InvalidInput` for wrong shapes, costs that are negative or not finite, and
    tables that are not there.
    """
    start = time.monotonic()
    if math.isnan(time_limit_seconds) or time_limit_seconds < 0:
        raise InvalidInput(f"time_limit_seconds is {time_limit_seconds}, not 0 or more: give seconds, or math.inf")
    if not 0 <= max_gap < math.inf:
        raise InvalidInput(f"max_gap is {max_gap}, not a fraction of 0 or more: give 1e-6 for one in a million")
    given = _validated(keep_cost, child, parent, edge_cost, must_keep)
    reduced = Reduced(given)
    kept = reduced.kept.copy()
    open_gap = 0.0
    parts = list(reduced.parts())
    edges_left = sum(part.child.size for _, part in parts)
    deadline = start + time_limit_seconds
    for tables, part in parts:
        # Half of the time left, or more where most of the work left is here: what is not used goes to the next.
        share = max(0.5, part.child.size / edges_left)
        now = time.monotonic()
        chosen, cost, bound = _solve_part(part, now + share * (deadline - now), max_gap)
        edges_left -= part.child.size
        kept[tables] = chosen
        if cost - bound > _ROUNDING * cost:
            open_gap += cost - bound
    chosen_parent, cost = _assigned(given, kept)
    return Solution(
        parent=chosen_parent,
        cost=cost,
        bound=max(cost - open_gap, 0.0),
        seconds=time.monotonic() - start,
        components=reduced.components,
    )


def _validated(
    keep_cost: ArrayLike, child: ArrayLike, parent: ArrayLike, edge_cost: ArrayLike, must_keep: ArrayLike | None
) -> Given:
    costs = _costs(keep_cost, "keep_cost")
    n = costs.size
    ends = [_tables(child, "child", n), _tables(parent, "parent", n)]
    edges = _costs(edge_cost, "edge_cost")
    if not ends[0].size == ends[1].size == edges.size:
        found = f"{ends[0].size} children, {ends[1].size} parents and {edges.size} edge costs"
        raise InvalidInput(f"there are {found}: give one of each per edge")
    must = np.zeros(n, dtype=bool) if must_keep is None else np.asarray(must_keep)
    if must.dtype != np.bool_ or must.shape != (n,):
        found = f"{must.dtype} of shape {must.shape}"
        raise InvalidInput(f"must_keep is {found}, not bool of shape ({n},): give one truth value per table")
    with np.errstate(over="ignore"):
        if not math.isfinite(costs.sum() + edges.sum()):
            raise InvalidInput("the costs add up to more than a float64 holds: give them in a larger unit")
    order = np.lexsort((edges, ends[1], ends[0]))
    child, parent, edges = ends[0][order], ends[1][order], edges[order]
    first = np.ones(edges.size, dtype=bool)
    first[1:] = (child[1:] != child[:-1]) | (parent[1:] != parent[:-1])
    first &= child != parent
    return Given(costs, must, child[first], parent[first], edges[first])


def _costs(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "fiu"):
        raise InvalidInput(f"{name} is {array.dtype} of shape {array.shape}: give a one-dimensional array of float64")
    array = array.astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if wrong.size:
        raise InvalidInput(f"{name}[{wrong[0]}] is {array[wrong[0]]}: give finite costs of 0 or more")
    return array


def _tables(values: ArrayLike, name: str, n: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InvalidInput(f"{name} is {array.dtype} of shape {array.shape}: give a one-dimensional array of int64")
    wrong = np.flatnonzero((array < 0) | (array >= n))
    if wrong.size:
        raise InvalidInput(f"{name}[{wrong[0]}] is {array[wrong[0]]}, but there are {n} tables: count them from 0")
    return array.astype(np.int64)


def _assigned(given: Given, kept: NDArray[np.bool_]) -> tuple[NDArray[np.int64], float]:
    """Each table's cheapest kept parent, or -1, and the cost of it all: a choice that can be made, whatever ``kept``.

    A table is kept that no kept parent serves, or none for less than it costs itself.
    """
    n = kept.size
    kept = kept | given.must_keep
    while True:
        usable = np.flatnonzero(kept[given.parent])
        order = usable[np.lexsort((given.parent[usable], given.edge_cost[usable], given.child[usable]))]
        served, first = np.unique(given.child[order], return_index=True)
        parent = np.full(n, -1, dtype=np.int64)
        cost = np.full(n, math.inf)
        parent[served] = given.parent[order[first]]
        cost[served] = given.edge_cost[order[first]]
        more = kept | (cost >= given.keep_cost)
        if np.array_equal(more, kept):
            parent[kept] = -1
            return parent, float(np.where(kept, given.keep_cost, cost).sum())
        kept = more


def _solve_part(part: Part, deadline: float, max_gap: float) -> tuple[NDArray[np.bool_], float, float]:
    """What to keep of the part, its cost, and a lower bound of that cost."""
    servers = np.unique(part.parent)
    if servers.size <= _ENUMERATED and part.keep_cost.size << servers.size <= _MOST_ENTRIES:
        kept, cost = _enumerate(part, servers)
        return kept, cost, cost
    kept, cost = greedy(part)
    bound = part.least()
    if time.monotonic() < deadline and cost > bound:
        found, proven = _integer_program(part, servers, kept, deadline, max_gap)
        bound = max(bound, proven)
        if found is not None:
            other, other_cost = part.complete(found)
            if other_cost < cost:
                kept, cost = other, other_cost
    return kept, cost, min(bound, cost)


def _enumerate(part: Part, servers: NDArray[np.int64]) -> tuple[NDArray[np.bool_], float]:
    """Try every subset of the tables that can serve others; all else follows from that."""
    chosen = (np.arange(1 << servers.size)[:, None] >> np.arange(servers.size)) & 1 == 1
    cost = np.repeat(part.alone[None, :], len(chosen), axis=0)
    place = np.searchsorted(servers, part.parent)
    for child, server, edge_cost in zip(part.child, place, part.edge_cost, strict=True):
        np.minimum(cost[:, child], edge_cost, out=cost[:, child], where=chosen[:, server])
    cost[:, servers] = np.where(chosen, part.keep_cost[servers], cost[:, servers])
    kept = np.zeros(part.keep_cost.size, dtype=bool)
    kept[servers] = chosen[np.argmin(cost.sum(axis=1))]
    return part.complete(kept)


def _integer_program(
    part: Part, servers: NDArray[np.int64], start: NDArray[np.bool_], deadline: float, max_gap: float
) -> tuple[NDArray[np.bool_] | None, float]:
    """Solve with HiGHS: what it keeps, or None where it found nothing, and a lower bound, perhaps minus infinity.

    Only tables that can serve others have a variable x, 1 where kept; each edge has a y of at most its parent's x.
    The x are integral, the y need not be: for given x each child's share is cheapest on a single kept parent.
    """
    import highspy  # a tenth of a second, and large

    unit = max(float(part.alone.mean()) / _SCALE, float(np.finfo(np.float64).tiny))
    solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    options = {"output_flag": False, "threads": 1, "parallel": "off", "random_seed": 0}
    limits = {"time_limit": max(deadline - time.monotonic(), 0.0), "mip_rel_gap": max_gap, "mip_abs_gap": 0.0}
    for name, value in (options | limits).items():
        solver.setOptionValue(name, value)
    solver.passModel(_model(highspy, part, servers, unit))
    first = highspy.HighsSolution()
    first.col_value = _columns(part, servers, start)
    solver.setSolution(first)
    _run(solver)
    info = solver.getInfo()
    bound = info.mip_dual_bound * unit
    proven = bound if math.isfinite(bound) else -math.inf
    if info.primal_solution_status != _FEASIBLE:
        return None, proven
    kept = np.zeros(start.size, dtype=bool)
    kept[servers] = np.asarray(solver.getSolution().col_value)[: servers.size] > 0.5
    return kept, proven


def _model(highspy: Any, part: Part, servers: NDArray[np.int64], unit: float) -> Any:
    """The columns x and y, a row for each table and one for each edge.

    A table that has a way out of its own, kept or rebuilt from outside, starts at that cost, and x and y count what
    they change; at most one of them may. A server without one is kept or served: exactly one.
    """
    n, m, p = part.keep_cost.size, part.child.size, servers.size
    exact = np.zeros(n, dtype=bool)
    exact[servers] = np.isinf(part.external[servers])
    base = np.where(exact, 0.0, part.alone)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = p + m, n + m
    model.offset_ = float(base.sum()) / unit
    x_cost = part.keep_cost[servers] - base[servers]
    model.col_cost_ = np.concatenate([x_cost, part.edge_cost - base[part.child]]) / unit
    model.col_lower_, model.col_upper_ = np.zeros(p + m), np.ones(p + m)
    integer, continuous = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
    model.integrality_ = [integer] * p + [continuous] * m
    model.row_lower_ = np.concatenate([np.where(exact, 1.0, -math.inf), np.full(m, -math.inf)])
    model.row_upper_ = np.concatenate([np.ones(n), np.zeros(m)])
    # By column: x is in its table's row and, at -1, in its edges' rows; y in its child's row and in its own.
    by_parent = np.argsort(part.parent, kind="stable")
    edges_of = np.bincount(part.parent, minlength=n)[servers]
    at = np.concatenate([[0], np.cumsum(edges_of + 1)])
    x_row = np.empty(p + m, dtype=np.int32)
    is_table = np.zeros(p + m, dtype=bool)
    is_table[at[:-1]] = True
    x_row[is_table], x_row[~is_table] = servers, n + by_parent
    y_row = np.column_stack([part.child, n + np.arange(m)]).ravel()
    matrix = model.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kColwise
    matrix.start_ = np.concatenate([at, at[-1] + 2 * np.arange(1, m + 1)]).astype(np.int32)
    matrix.index_ = np.concatenate([x_row, y_row]).astype(np.int32)
    matrix.value_ = np.concatenate([np.where(is_table, 1.0, -1.0), np.ones(2 * m)])
    return model


def _columns(part: Part, servers: NDArray[np.int64], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The x and y of a choice."""
    usable = np.flatnonzero(kept[part.parent] & ~kept[part.child] & (part.edge_cost < part.external[part.child]))
    order = usable[np.lexsort((part.edge_cost[usable], part.child[usable]))]
    y = np.zeros(part.child.size)
    y[order[np.unique(part.child[order], return_index=True)[1]]] = 1.0
    return np.concatenate([kept[servers].astype(np.float64), y])


def _run(solver: Any) -> None:
    """Solve on a thread of its own: HiGHS fixes the number of threads once per caller's thread, and it is not ours."""
    done = threading.Event()

    def run() -> None:
        try:
            solver.run()
        finally:
            done.set()

    solver.HandleUserInterrupt = True
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        done.wait()  # a join that is interrupted would take the thread for ended
    except BaseException:
        solver.cancelSolve()
        done.wait()
        raise
    finally:
        thread.join()
