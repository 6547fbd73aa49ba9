"""``attribute op value`` as intervals of keys, compared as DuckDB would.

DuckDB may convert one side before it compares: integers to doubles, decimals to floats. Where that could round, the
comparison is left to DuckDB itself (:class:`LeftToDuckDB`), as is every pair of types that is not listed here.
"""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from .intervals import NOTHING, NUMBERS, TEXTS, Cut, Intervals, after, before, complement
from .keys import float_key, is_text

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LeftToDuckDB", "compared", "domain_of"]

EXACT_DOUBLE: Final = 2**53
"""Whole numbers below it are doubles too."""
EXACT_FLOAT: Final = 2**24
"""And below it, floats."""
EPOCH: Final = dt.datetime(1970, 1, 1)
TICKS: Final = {"s": 1, "ms": 10**3, "us": 10**6}
"""A second in each unit; nanoseconds DuckDB compares in ways of its own."""


class LeftToDuckDB(Exception):
    """This comparison is DuckDB's to judge."""


def domain_of(kind: pa.DataType) -> Intervals:
    """Every value of a type."""
    return TEXTS if is_text(kind) else NUMBERS


def compared(kind: pa.DataType, operator: str, value: Any) -> Intervals:
    """The values of an attribute of this type for which ``attribute operator value`` is true.

    ``operator`` is one of = <> < <= > >=; NULL compares with nothing.
    """
    if value is None:
        return NOTHING
    lowest, highest = _equal(kind, value)
    low, high = domain_of(kind)[0]
    if operator == "=":
        wanted = (lowest, highest)
    elif operator == "<>":
        return complement(((lowest, highest),) if lowest < highest else (), domain_of(kind))
    elif operator in ("<", "<="):
        wanted = (low, highest if operator == "<=" else lowest)
    else:
        wanted = (lowest if operator == ">=" else highest, high)
    return (wanted,) if wanted[0] < wanted[1] else NOTHING


def _equal(kind: pa.DataType, value: Any) -> tuple[Cut, Cut]:
    """The cuts around what equals the value; one cut twice, between the neighbours, where nothing does."""
    if isinstance(value, np.generic):
        value = value.item()
    for fits, cuts in _CUTS:
        if fits(kind):
            return cuts(kind, value)
    raise LeftToDuckDB


def _text(kind: pa.DataType, value: Any) -> tuple[Cut, Cut]:
    if not isinstance(value, str):
        raise LeftToDuckDB
    return before(value), after(value)


def _boolean(kind: pa.DataType, value: Any) -> tuple[Cut, Cut]:
    if not isinstance(value, bool):
        raise LeftToDuckDB
    return int(value), int(value) + 1


def _whole(kind: pa.DataType, value: Any) -> tuple[Cut, Cut]:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise LeftToDuckDB
    if isinstance(value, float) and not abs(value) < EXACT_DOUBLE:
        raise LeftToDuckDB
    if isinstance(value, Decimal) and not value.is_finite():
        raise LeftToDuckDB
    shift = 2**63 if pa.types.is_uint64(kind) else 0
    low = _clamped(math.ceil(value) - shift)
    return low, _clamped(math.floor(value) + 1 - shift)


def _clamped(cut: int) -> int:
    return min(max(cut, -(2**63)), 2**63)


def _real(kind: pa.DataType, value: Any) -> tuple[Cut, Cut]:
    exact = EXACT_FLOAT if pa.types.is_float32(kind) else EXACT_DOUBLE
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LeftToDuckDB
    if isinstance(value, int) and abs(value) > exact:
        raise LeftToDuckDB
    if value == 0:
        return float_key(-0.0), float_key(0.0) + 1
    key = float_key(float(value))
    return key, key + 1


def _day(kind: pa.DataType, value: Any) -> tuple[Cut, Cut]:
    return _around(_seconds(value), Decimal(86_400))


def _moment(kind: pa.DataType, value: Any) -> tuple[Cut, Cut]:
    if kind.unit not in TICKS:
        raise LeftToDuckDB
    return _around(_seconds(value, aware=kind.tz is not None), 1 / Decimal(TICKS[kind.unit]))


def _seconds(value: Any, aware: bool = False) -> Decimal:
    """Seconds since 1970 in UTC, which DuckDB takes a moment without a zone to be in here."""
    if value in (dt.date.min, dt.date.max, dt.datetime.min, dt.datetime.max):
        raise LeftToDuckDB  # DuckDB takes some of these for infinity
    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            if not aware:
                raise LeftToDuckDB
            value = value.astimezone(dt.UTC).replace(tzinfo=None)
    elif isinstance(value, dt.date):
        value = dt.datetime(value.year, value.month, value.day)
    else:
        raise LeftToDuckDB
    return Decimal((value - EPOCH) // dt.timedelta(microseconds=1)) / 10**6


def _around(seconds: Decimal, tick: Decimal) -> tuple[Cut, Cut]:
    return math.ceil(seconds / tick), math.floor(seconds / tick) + 1


_CUTS: Final[tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType, Any], tuple[Cut, Cut]]], ...]] = (
    (is_text, _text),
    (pa.types.is_integer, _whole),
    (pa.types.is_floating, _real),
    (pa.types.is_boolean, _boolean),
    (pa.types.is_date32, _day),
    (pa.types.is_timestamp, _moment),
)
