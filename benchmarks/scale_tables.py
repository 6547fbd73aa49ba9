"""What the scale lake holds: TPC-H's eight tables and some 260 derived ones, as values.

Every derived table is a set of rows of one TPC-H table and of rows synthesised from it, under a list of columns. That
is all the truth needs to know (``scale_truth.py``); order, layout, types and copies change the bytes, not the rows.
Predicates are DuckDB SQL over the columns of the TPC-H table and ``pos``, the row's position in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COLUMNS: dict[str, tuple[str, ...]] = {
    "lineitem": (
        *("l_orderkey", "l_partkey", "l_suppkey", "l_linenumber", "l_quantity", "l_extendedprice", "l_discount"),
        *("l_tax", "l_returnflag", "l_linestatus", "l_shipdate", "l_commitdate", "l_receiptdate", "l_shipinstruct"),
        *("l_shipmode", "l_comment"),
    ),
    "orders": (
        *("o_orderkey", "o_custkey", "o_orderstatus", "o_totalprice", "o_orderdate", "o_orderpriority", "o_clerk"),
        *("o_shippriority", "o_comment"),
    ),
    "partsupp": ("ps_partkey", "ps_suppkey", "ps_availqty", "ps_supplycost", "ps_comment"),
    "customer": (
        *("c_custkey", "c_name", "c_address", "c_nationkey", "c_phone", "c_acctbal", "c_mktsegment"),
        "c_comment",
    ),
    "part": (
        *("p_partkey", "p_name", "p_mfgr", "p_brand", "p_type", "p_size", "p_container", "p_retailprice"),
        "p_comment",
    ),
    "supplier": ("s_suppkey", "s_name", "s_address", "s_nationkey", "s_phone", "s_acctbal", "s_comment"),
    "nation": ("n_nationkey", "n_name", "n_regionkey", "n_comment"),
    "region": ("r_regionkey", "r_name", "r_comment"),
}
"""The TPC-H tables and their columns."""

KEYS: dict[str, tuple[str, ...]] = {
    "lineitem": ("l_orderkey", "l_linenumber"),
    "orders": ("o_orderkey",),
    "partsupp": ("ps_partkey", "ps_suppkey"),
    "customer": ("c_custkey",),
    "part": ("p_partkey",),
    "supplier": ("s_suppkey",),
    "nation": ("n_nationkey",),
    "region": ("r_regionkey",),
}
"""Columns whose values no two rows of the TPC-H table share."""

CHAIN_DEPTH = 10
_CHAIN_SHRINK = 0.7
_YEARS = range(1992, 1999)
_WHOLE_YEARS = range(1993, 1998)
_UNIT = 2**32


@dataclass(frozen=True)
class Synthetic:
    """Rows made from a TPC-H table: those ``where`` picks, with some values replaced.

    ``replace`` maps columns to SQL over ``b``, the row itself, and ``d``, another row of the same table that a fixed
    rearrangement pairs with it.
    """

    tag: str
    base: str
    where: str
    replace: Mapping[str, str]


@dataclass(frozen=True)
class Derived:
    """One table of the lake: rows of ``base`` that ``where`` picks, and the synthetic rows tagged ``synthetic``.

    ``casts`` maps columns to the SQL type they are written with; every cast keeps the value, except that of ``lossy``,
    a decimal column written as double, whose values survive only where they are multiples of 1/4.
    ``renames`` maps columns to the names they are written under.
    """

    name: str
    base: str
    role: str
    columns: tuple[str, ...]
    where: str = "true"
    synthetic: str = ""
    casts: Mapping[str, str] = field(default_factory=dict)
    lossy: str = ""
    renames: Mapping[str, str] = field(default_factory=dict)
    order: str = ""
    distinct: bool = False
    row_group_rows: int = 122_880
    files: int = 1
    arrow_text: str = "string"

    @property
    def names(self) -> tuple[str, ...]:
        """The column names as written."""
        return tuple(self.renames.get(column, column) for column in self.columns)


def derive(rows: Mapping[str, int], seed: int) -> tuple[list[Synthetic], list[Derived]]:
    """Return the synthetic rows and the tables of the lake, for TPC-H tables of so many ``rows``."""
    tables: list[Derived] = [_whole(base, "base") for base in COLUMNS]
    synthetics: list[Synthetic] = []
    tables += _chains(rows, seed)
    tables += _periods()
    tables += _samples(seed)
    tables += _copies()
    tables += _widened()
    tables += _projections(seed)
    for near in _near_misses(rows, seed):
        synthetics += [near.rows] if near.rows is not None else []
        tables.append(near.table)
    for kind, decoy in _decoys(rows, seed):
        synthetics.append(kind)
        tables.append(decoy)
    return synthetics, tables


def sample(fraction: float, salt: int) -> str:
    """Return a predicate that keeps about ``fraction`` of the rows, spread over the table."""
    return f"mix(pos, {salt}) < {int(fraction * _UNIT)}"


def _span(rows: int, start: float, length: float) -> str:
    first = int(rows * start)
    return f"pos >= {first} AND pos < {first + max(3, int(rows * length))}"


def _whole(base: str, role: str) -> Derived:
    return Derived(base, base, role, COLUMNS[base])


def _full(name: str, base: str, role: str, where: str, **more: Any) -> Derived:
    return Derived(name, base, role, COLUMNS[base], where, **more)


def _chains(rows: Mapping[str, int], seed: int) -> Iterator[Derived]:
    """Tables each inside the one before: by range, and by sample."""
    for depth in range(CHAIN_DEPTH):
        part = _CHAIN_SHRINK**depth
        span = _span(rows["lineitem"], 0.1, 0.4 * part)
        yield _full(f"lineitem_range_{depth}", "lineitem", "chain", span)
        yield _full(f"lineitem_sample_{depth}", "lineitem", "chain", sample(0.2 * part, seed + 1))
        yield _full(f"orders_range_{depth}", "orders", "chain", _span(rows["orders"], 0.05, 0.8 * part))


def _year(column: str, year: int) -> str:
    return f"{column} >= DATE '{year}-01-01' AND {column} < DATE '{year + 1}-01-01'"


def _periods() -> Iterator[Derived]:
    """What a lake is full of: the same table cut by year, quarter and month."""
    for year in _YEARS:
        yield _full(f"lineitem_{year}", "lineitem", "range", _year("l_shipdate", year))
        yield _full(f"orders_{year}", "orders", "range", _year("o_orderdate", year))
    for year in _WHOLE_YEARS:
        for quarter in range(4):
            start, end = f"{year}-{3 * quarter + 1:02}-01", f"{year + quarter // 3}-{(3 * quarter + 3) % 12 + 1:02}-01"
            where = f"l_shipdate >= DATE '{start}' AND l_shipdate < DATE '{end}'"
            yield _full(f"lineitem_{year}_q{quarter + 1}", "lineitem", "range", where)
    for month in range(1, 13):
        where = f"{_year('o_orderdate', 1996)} AND month(o_orderdate) = {month}"
        yield _full(f"orders_1996_{month:02}", "orders", "range", where)


def _samples(seed: int) -> Iterator[Derived]:
    fractions = {"lineitem": 0.01, "orders": 0.05, "partsupp": 0.1, "customer": 0.2, "part": 0.2}
    for base, fraction in fractions.items():
        for number in range(4):
            where = sample(fraction, seed + 10 + number)
            yield _full(f"{base}_pick_{number}", base, "sample", where, order="mix(pos, 3)")


def _copies() -> Iterator[Derived]:
    """The same rows in another order, other row groups, other files, or other column order."""
    yield _full("lineitem_by_part", "lineitem", "duplicate", "true", order="l_partkey, pos", row_group_rows=500_000)
    yield _full("orders_by_customer", "orders", "duplicate", "true", order="o_custkey, pos", row_group_rows=40_000)
    yield _full("orders_again", "orders", "duplicate", "true", row_group_rows=20_000)
    yield _full("partsupp_by_supplier", "partsupp", "duplicate", "true", order="ps_suppkey, pos")
    yield _full("customer_backwards", "customer", "duplicate", "true", order="pos DESC", row_group_rows=10_000)
    yield _full("part_by_brand", "part", "duplicate", "true", order="p_brand, pos", files=3)
    yield _full("lineitem_1996_files", "lineitem", "duplicate", _year("l_shipdate", 1996), files=4)
    for turn, year in enumerate((1993, 1994, 1997)):
        columns = COLUMNS["lineitem"]
        turned = (*reversed(columns[turn:]), *columns[:turn])
        yield Derived(f"lineitem_{year}_turned", "lineitem", "permutation", turned, _year("l_shipdate", year))
    turned = (*COLUMNS["orders"][4:], *COLUMNS["orders"][:4])
    yield Derived("orders_1995_turned", "orders", "permutation", turned, _year("o_orderdate", 1995))
    renames = {column: column.replace("l_", "line_") for column in COLUMNS["lineitem"]}
    yield _full("shipments_1995", "lineitem", "renamed", _year("l_shipdate", 1995), renames=renames)
    renames = {"o_comment": "o_note", "o_clerk": "o_agent"}
    yield _full("orders_1994_renamed", "orders", "renamed", _year("o_orderdate", 1994), renames=renames)


def _widened() -> Iterator[Derived]:
    """The same values under wider types; and two columns whose values a double cannot all hold."""
    wide = {"l_linenumber": "BIGINT", "l_extendedprice": "DECIMAL(18,4)", "l_tax": "DECIMAL(30,6)"}
    yield _full("lineitem_1993_wide", "lineitem", "widened", _year("l_shipdate", 1993), casts=wide)
    floats = {"l_quantity": "DOUBLE", "l_linenumber": "FLOAT", "l_suppkey": "DOUBLE"}
    yield _full("lineitem_1994_float", "lineitem", "widened", _year("l_shipdate", 1994), casts=floats)
    whole = {"l_quantity": "INTEGER", "l_orderkey": "DECIMAL(20,0)"}
    yield _full("lineitem_1992_whole", "lineitem", "widened", _year("l_shipdate", 1992), casts=whole)
    for text, year in (("dictionary", 1995), ("large_string", 1996)):
        where = _year("l_shipdate", year)
        yield _full(f"lineitem_{year}_{text}", "lineitem", "widened", where, arrow_text=text)
    yield _full("orders_float", "orders", "widened", "true", casts={"o_custkey": "DOUBLE", "o_shippriority": "FLOAT"})
    yield _full("partsupp_wide", "partsupp", "widened", "true", casts={"ps_availqty": "DOUBLE"})
    yield _full("part_wide", "part", "widened", "true", casts={"p_size": "BIGINT", "p_retailprice": "DECIMAL(38,10)"})
    lossy = {"l_extendedprice": "DOUBLE"}
    where = _year("l_shipdate", 1997)
    yield _full("lineitem_1997_price_double", "lineitem", "lossy", where, casts=lossy, lossy="l_extendedprice")
    where = f"{where} AND (l_extendedprice * 100)::BIGINT % 25 = 0"
    yield _full("lineitem_1997_quarters_double", "lineitem", "lossy", where, casts=lossy, lossy="l_extendedprice")
    lossy = {"c_acctbal": "DOUBLE"}
    yield _full("customer_balance_double", "customer", "lossy", "true", casts=lossy, lossy="c_acctbal")


def _projections(seed: int) -> Iterator[Derived]:
    """Fewer columns: with the key, and without it, where rows coincide by accident."""

    def cut(name: str, base: str, columns: str, where: str = "true", **more: Any) -> Derived:
        return Derived(name, base, "projection", tuple(columns.split()), where, **more)

    tenth = sample(0.1, seed + 30)
    year_1995, year_1996 = _year("l_shipdate", 1995), _year("l_shipdate", 1996)
    yield cut("line_keys", "lineitem", "l_orderkey l_linenumber l_partkey l_suppkey")
    yield cut("line_keys_1995", "lineitem", "l_suppkey l_partkey l_linenumber l_orderkey", year_1995)
    yield cut("line_keys_tenth", "lineitem", "l_orderkey l_linenumber l_partkey l_suppkey", tenth)
    prices = "l_orderkey l_linenumber l_quantity l_extendedprice l_discount l_tax"
    yield cut("line_prices", "lineitem", prices)
    yield cut("line_prices_1996", "lineitem", prices, year_1996, order="mix(pos, 5)")
    dates = "l_orderkey l_linenumber l_shipdate l_commitdate l_receiptdate"
    yield cut("line_dates_1996", "lineitem", dates, year_1996)
    yield cut("line_comments_tenth", "lineitem", "l_linenumber l_comment l_orderkey", tenth)
    yield cut("line_flags", "lineitem", "l_returnflag l_linestatus", distinct=True)
    yield cut("line_flags_1997", "lineitem", "l_returnflag l_linestatus", _year("l_shipdate", 1997), distinct=True)
    yield cut("line_modes", "lineitem", "l_shipmode l_shipinstruct", sample(0.002, seed + 31))
    yield cut("line_rates_1992", "lineitem", "l_discount l_tax l_quantity", _year("l_shipdate", 1992), distinct=True)
    yield cut("line_rates_tenth", "lineitem", "l_quantity l_discount l_tax", f"{year_1995} AND {tenth}")
    yield cut("line_supply", "lineitem", "l_partkey l_suppkey", sample(0.02, seed + 32))
    yield cut("line_days", "lineitem", "l_shipdate l_shipmode", year_1996, distinct=True)
    yield cut("order_keys", "orders", "o_orderkey o_custkey")
    yield cut("order_keys_1996", "orders", "o_custkey o_orderkey", _year("o_orderdate", 1996))
    yield cut("order_totals", "orders", "o_orderkey o_totalprice o_orderdate", tenth, order="o_totalprice, pos")
    yield cut("order_status", "orders", "o_orderstatus o_orderpriority", distinct=True)
    yield cut("order_days", "orders", "o_orderdate o_orderpriority", tenth)
    yield cut("order_clerks_1996", "orders", "o_clerk", _year("o_orderdate", 1996), distinct=True)
    yield cut("supply_costs", "partsupp", "ps_partkey ps_suppkey ps_supplycost", order="ps_supplycost, pos")
    yield cut("supply_quantities", "partsupp", "ps_availqty", tenth, distinct=True)
    yield cut("customer_contacts", "customer", "c_custkey c_name c_phone")
    yield cut("customer_segments", "customer", "c_nationkey c_mktsegment", distinct=True)
    yield cut("customer_segments_tenth", "customer", "c_mktsegment c_nationkey", tenth)
    yield cut("part_names", "part", "p_partkey p_name p_brand")
    yield cut("part_kinds", "part", "p_type p_size", tenth, distinct=True)
    yield cut("part_boxes", "part", "p_mfgr p_brand p_container", distinct=True)
    yield cut("supplier_phones", "supplier", "s_suppkey s_phone")
    yield cut("nation_names", "nation", "n_name n_nationkey", order="n_name")


@dataclass(frozen=True)
class _Near:
    table: Derived
    rows: Synthetic | None


def _near_misses(rows: Mapping[str, int], seed: int) -> Iterator[_Near]:
    """Copies that differ from a table in one row or two, by the least that a value can differ."""

    def near(name: str, place: float, where: str = "true", columns: tuple[str, ...] = (), **edit: str) -> _Near:
        base = _BASE_OF[name.partition("_")[0]]
        return _near(name, base, where, row=int(rows[base] * place), edit=edit, columns=columns)

    def swapped(name: str, place: float, column: str, where: str = "true") -> _Near:
        base = _BASE_OF[name.partition("_")[0]]
        return _swapped(name, base, where, row=int(rows[base] * place), column=column)

    line_span = _span(rows["lineitem"], 0.1, 0.4)
    yield near("lineitem_changed", 0.37, l_comment="b.l_comment || 's'")
    yield _Near(_full("lineitem_minus_one", "lineitem", "near miss", f"pos <> {int(rows['lineitem'] * 0.17)}"), None)
    yield near("lineitem_range_cent", 0.21, line_span, l_extendedprice="b.l_extendedprice + 0.01")
    yield near("lineitem_range_null", 0.12, line_span, l_comment="NULL")
    yield swapped("lineitem_range_swapped", 0.15, "l_extendedprice", line_span)
    yield near("lineitem_1994_near", 0.34, _year("l_shipdate", 1994), l_shipmode="lower(b.l_shipmode)")
    yield near("lineitem_1995_near", 0.35, _year("l_shipdate", 1995), l_receiptdate="b.l_receiptdate + 1")
    yield near("lineitem_1996_near", 0.36, _year("l_shipdate", 1996), l_comment="b.l_comment || ' '")
    yield near("lineitem_1997_near", 0.37, _year("l_shipdate", 1997), l_quantity="b.l_quantity + 0.01")
    yield near("lineitem_1993_near", 0.38, _year("l_shipdate", 1993), l_linenumber="NULL")
    keys = ("l_orderkey", "l_linenumber", "l_partkey", "l_suppkey")
    yield near("line_keys_near", 0.44, columns=keys, l_partkey="b.l_partkey + 1")
    modes = ("l_shipmode", "l_shipinstruct")
    yield near("line_modes_near", 0.5, sample(0.001, seed + 40), modes, l_shipmode="'CANAL'")
    yield near("orders_changed", 0.71, o_clerk="b.o_clerk || '0'")
    yield near("orders_null", 0.3, o_orderpriority="NULL")
    yield swapped("orders_swapped", 0.4, "o_totalprice")
    yield near("orders_1996_near", 0.6, _year("o_orderdate", 1996), o_comment="upper(b.o_comment)")
    yield near("partsupp_changed", 0.9, ps_availqty="b.ps_availqty % 9998 + 1")
    yield near("partsupp_null", 0.2, ps_supplycost="NULL")
    yield swapped("partsupp_swapped", 0.5, "ps_availqty")
    yield near("customer_changed", 0.5, c_phone="reverse(b.c_phone)")
    yield swapped("part_swapped", 0.25, "p_name")


_BASE_OF = {base: base for base in COLUMNS} | {"line": "lineitem"}


def _near(name: str, base: str, where: str, *, row: int, edit: Mapping[str, str], columns: tuple[str, ...]) -> _Near:
    """``where`` without its first row at or after ``row``, which comes back edited."""
    chosen = f"pos = (SELECT min(pos) FROM {base} WHERE pos >= {row} AND {where})"
    table = Derived(name, base, "near miss", columns or COLUMNS[base], f"{where} AND NOT ({chosen})", name)
    return _Near(table, Synthetic(name, base, chosen, edit))


def _swapped(name: str, base: str, where: str, *, row: int, column: str) -> _Near:
    """``where`` with the values of one column exchanged between two rows: every column keeps its values."""
    own = f"(SELECT {column} FROM {base} WHERE pos = {row})"
    second = f"(SELECT min(s.pos) FROM {base} s WHERE s.pos >= {row} AND s.{column} <> {own})"
    others = f"(SELECT {column} FROM {base} WHERE pos = {second})"
    pair = f"pos IN ({row}, {second})"
    table = _full(name, base, "near miss", f"{where} AND NOT ({pair})", synthetic=name)
    return _Near(table, Synthetic(name, base, pair, {column: f"CASE WHEN b.pos = {row} THEN {others} ELSE {own} END"}))


_DECOYS = {"lineitem": 40, "orders": 16, "partsupp": 10, "customer": 6, "part": 6, "supplier": 4}
_GAP_KEY = {
    # TPC-H uses the first 8 of every 32 order keys; the other keys stop at a maximum, so theirs are halves
    "lineitem": ("l_orderkey", "b.l_orderkey + {gap}"),
    "orders": ("o_orderkey", "b.o_orderkey + {gap}"),
}
_SHUFFLED = {
    "lineitem": ("l_comment", "l_extendedprice", "l_partkey"),
    "orders": ("o_comment", "o_totalprice"),
    "partsupp": ("ps_comment", "ps_supplycost"),
    "customer": ("c_address", "c_phone"),
    "part": ("p_name", "p_comment"),
    "supplier": ("s_address", "s_phone"),
}


def _decoys(rows: Mapping[str, int], seed: int) -> Iterator[tuple[Synthetic, Derived]]:
    """Tables of the same schema and inside the same ranges that nothing contains.

    Three kinds in turn: keys that TPC-H leaves free; values of some columns shuffled between rows, so that every column
    on its own is contained; and true rows with a few such rows among them.
    """
    for base, count in _DECOYS.items():
        for number in range(count):
            name = f"{base}_decoy_{number:02}"
            length = 0.01 + 0.05 * ((number * 7) % count) / count
            span = _span(
                rows[base], 0.05 + 0.7 * ((number * 3) % count) / count, length * (1 if base == "lineitem" else 3)
            )
            kind = number % 3
            replace = {column: f"d.{column}" for column in _SHUFFLED[base]}
            if kind == 0 and base in _GAP_KEY:
                column, expression = _GAP_KEY[base]
                replace[column] = expression.format(gap=8 + 8 * (number % 2))
            true_rows = f"{span} AND {sample(0.8, seed + number)}" if kind == 2 else "false"
            picked = f"{span} AND NOT ({sample(0.8, seed + number)})" if kind == 2 else span
            yield Synthetic(name, base, picked, replace), _full(name, base, "decoy", true_rows, synthetic=name)
