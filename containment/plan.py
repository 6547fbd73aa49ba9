"""The retirement plan: which tables to keep, which to rebuild from which, and why (OPT-RET of R2D2, arXiv 2312.13427).

``find_candidates`` looks at the tables once: candidate pairs, what reading each way takes, what rules pairs out.
Everything that depends on prices and limits comes after and costs milliseconds: other prices need no new search.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from ..lake.errors import InvalidInput, NotFound
from .costs import Usage, kept_cost, retired_cost
from .explanation import explanation, kept_reason
from .program import solve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from .candidates import Candidates
    from .prices import Prices
    from .program import Solution
    from .throughput import Throughput

__all__ = ["Limits", "Plan", "make_plan"]

ACTIONS_SCHEMA: Final = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("parent", pa.string()),
        pa.field("saves_per_month", pa.float64(), nullable=False),
        pa.field("restore_seconds", pa.float64()),
        pa.field("recipe_bytes", pa.int64()),
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""``saves_per_month``: dollars, net of the recipe, of reads through it and of moving it. ``restore_seconds``,
``recipe_bytes``: estimates; NULL where the table is kept."""
_AGE_WEIGHT: Final = 1e-10
"""Far below any price: of copies that cost the same, the oldest stays."""
SOLVE_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a rebuilt table may cost in time: seconds to restore it, and stored bytes read over its own; and in how many
    months what retiring it costs once must have come back.
    """

    max_restore_seconds: float = 60.0
    max_read_amplification: float = 10.0
    payback_months: float = 12.0

    def __post_init__(self) -> None:
        for name in ("max_restore_seconds", "max_read_amplification", "payback_months"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value > 0:
                raise InvalidInput(f"{name} is {value!r}, expected a number above 0")


@dataclass(frozen=True)
class Plan:
    """What to retire. ``db.retire(plan)`` does it; nothing has been changed yet.

    ``prices``, ``limits`` and ``throughput`` are what it was made under. ``gap``: how far the cost may be above the
    least possible, as a fraction; 0 when proven. ``seconds``: of the search.
    """

    prices: Prices
    limits: Limits
    throughput: Throughput
    gap: float
    seconds: float
    candidates: Candidates = field(repr=False)
    _parents: tuple[int, ...] = field(repr=False)
    _pair_costs: tuple[float, ...] = field(repr=False)

    def __repr__(self) -> str:
        """For people."""
        return f"Plan({len(self.pairs)} tables to retire, {self.saves_per_month:.6g} USD a month)"

    @cached_property
    def actions(self) -> pa.Table:
        """One row a table: table, action ("keep" or "retire"), parent, saves_per_month, restore_seconds, recipe_bytes,
        num_bytes, reason. What saves most comes first.
        """
        rows = [self._row(table) for table in range(len(self.candidates.names))]
        rows.sort(key=lambda row: (-row["saves_per_month"], row["table"]))
        return pa.Table.from_pylist(rows, ACTIONS_SCHEMA)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Child and parent of every table to retire, by name."""
        names = self.candidates.names
        return [(names[table], names[parent]) for table, parent in enumerate(self._parents) if parent >= 0]

    @cached_property
    def cost_per_month_before(self) -> float:
        """Dollars a month when everything stays as it is."""
        return sum(self.kept_cost(table) for table in range(len(self.candidates.names)))

    @property
    def saves_per_month(self) -> float:
        """Dollars a month less than that."""
        return sum(self._saves(table) for table, parent in enumerate(self._parents) if parent >= 0)

    @property
    def retired_bytes(self) -> int:
        """Bytes of the files of the tables to retire."""
        sizes = self.candidates.num_bytes
        return sum(sizes[table] for table, parent in enumerate(self._parents) if parent >= 0)

    @property
    def recipe_bytes(self) -> int:
        """Bytes that their recipes are expected to take."""
        known = self.candidates
        chosen = (known.pairs[known.number[pair]] for pair in enumerate(self._parents) if pair[1] >= 0)
        return int(sum(pair.reading.recipe_bytes for pair in chosen))

    def what_if(self, **changes: Any) -> Plan:
        """The plan under other ``prices``, ``max_restore_seconds``, ``max_read_amplification``, ``payback_months`` or
        ``throughput``.

        Reads no table. Raises InvalidInput for anything else.
        """
        known = {"prices", "max_restore_seconds", "max_read_amplification", "payback_months", "throughput"}
        unknown = sorted(changes.keys() - known)
        if unknown:
            raise InvalidInput(f"found {', '.join(unknown)}, expected some of {', '.join(sorted(known))}")
        limits = {name: value for name, value in changes.items() if name not in ("prices", "throughput")}
        return make_plan(
            self.candidates,
            changes.get("prices", self.prices),
            replace(self.limits, **limits),
            changes.get("throughput", self.throughput),
        )

    def frontier(self, steps: int = 40) -> pa.Table:
        """The best plan under each restore-time limit: max_restore_seconds, saves_per_month, tables, retired_bytes.

        The limits are those at which some pair becomes possible, at most ``steps`` of them.
        """
        times = sorted({pair.restore_seconds(self.throughput) for pair in self.candidates.pairs})
        if len(times) > steps:
            times = [times[round(i * (len(times) - 1) / (steps - 1))] for i in range(steps)]
        rows = []
        for seconds in times:
            plan = self.what_if(max_restore_seconds=seconds * (1 + 1e-9))
            rows.append((seconds, plan.saves_per_month, len(plan.pairs), plan.retired_bytes))
        names = ("max_restore_seconds", "saves_per_month", "tables", "retired_bytes")
        kinds = (pa.float64(), pa.float64(), pa.int64(), pa.int64())
        columns = zip(*rows, strict=True) if rows else ((),) * 4
        return pa.table({n: pa.array(c, k) for n, c, k in zip(names, columns, kinds, strict=True)})

    def plot(self, path: str | PathLike[str]) -> None:
        """Write the frontier as an SVG file: dollars saved a month against the restore-time limit."""
        from .frontier import draw_frontier

        draw_frontier(self.frontier(), self.limits.max_restore_seconds, self.saves_per_month, path)

    def explain(self, table: str) -> str:
        """Why the table is kept or retired, in words, with its candidate parents. Raises NotFound for another name."""
        if table not in self.candidates.position:
            raise NotFound(f"the plan knows no table {table!r}; it was made over {len(self.candidates.names):,} tables")
        return explanation(self, self.candidates.position[table])

    @cached_property
    def serves(self) -> Counter[int]:
        """How many tables are to be rebuilt from each, by position."""
        return Counter(parent for parent in self._parents if parent >= 0)

    # --- one table -------------------------------------------------------------------------------------------------

    def parent_of(self, table: int) -> int:
        """The table that this one is to be rebuilt from, by position; -1 where it is kept."""
        return self._parents[table]

    def kept_cost(self, table: int) -> float:
        """Dollars a month for the table when it is kept."""
        known = self.candidates
        return kept_cost(known.readings[table], known.usage(table), self.prices, self.throughput)

    def pair_cost(self, pair: int) -> float:
        """Dollars a month for the child of a candidate pair when it is rebuilt from the parent."""
        return self._pair_costs[pair]

    def _saves(self, table: int) -> float:
        return self.kept_cost(table) - self._pair_costs[self.candidates.number[table, self._parents[table]]]

    def _row(self, table: int) -> dict[str, Any]:
        known, parent = self.candidates, self._parents[table]
        row = {"table": known.names[table], "num_bytes": known.num_bytes[table]}
        if parent < 0:
            nothing = {"parent": None, "saves_per_month": 0.0, "restore_seconds": None, "recipe_bytes": None}
            return row | nothing | {"action": "keep", "reason": kept_reason(self, table)}
        pair = known.pairs[known.number[table, parent]]
        return row | {
            "action": "retire",
            "parent": known.names[parent],
            "saves_per_month": self._saves(table),
            "restore_seconds": pair.restore_seconds(self.throughput),
            "recipe_bytes": int(pair.reading.recipe_bytes),
            "reason": f"all its rows are in {known.names[parent]}"
            + (f", without {', '.join(pair.extra)}" if pair.extra else ""),
        }


def make_plan(candidates: Candidates, prices: Prices, limits: Limits, throughput: Throughput) -> Plan:
    """The cheapest plan over these candidates under these prices and limits."""
    count = len(candidates.names)
    usage: Mapping[int, Usage] = {table: candidates.usage(table) for table in range(count)}
    keep = np.array([kept_cost(candidates.readings[t], usage[t], prices, throughput) for t in range(count)])
    costs = [
        retired_cost(pair.reading, pair.own, candidates.pair_usage(pair), prices, throughput, limits.payback_months)
        for pair in candidates.pairs
    ]
    allowed = [n for n, pair in enumerate(candidates.pairs) if pair.within(limits, throughput)]
    must_keep = np.zeros(count, np.bool_)
    must_keep[sorted(candidates.kept_because)] = True
    found: Solution = solve(
        keep * (1 + _AGE_WEIGHT * np.array(candidates.age_order)),
        np.array([candidates.pairs[n].child for n in allowed], np.int64),
        np.array([candidates.pairs[n].parent for n in allowed], np.int64),
        np.array([costs[n] for n in allowed], np.float64),
        must_keep=must_keep,
        time_limit_seconds=SOLVE_SECONDS,
    )
    return Plan(
        prices,
        limits,
        throughput,
        found.gap,
        found.seconds,
        candidates,
        tuple(found.parent.tolist()),
        tuple(costs),
    )
