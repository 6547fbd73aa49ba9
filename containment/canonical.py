"""What makes two values equal: families of types that compare, and the one canonical form of each scalar value.

A scalar becomes a *form* and a 64-bit word. Two values of one family are equal exactly when form and word are, whatever
their physical types. Numbers are taken as exact mathematical values, in the first form that fits:

    INTEGER    integral, within int64               the int64
    FLOAT      a float64 holds it exactly           its bits; infinities too, every NaN as one
    UNSIGNED   integral, within uint64              the uint64
    DECIMAL+s  unscaled / 10**s, 1 <= s <= 76       the unscaled int64, not divisible by ten
    LARGE      any other decimal                    no word: (unscaled, scale) as text, hashed by the caller

So 0.50 as decimal(10, 2) equals 0.5 as a float, 0.1 as a decimal differs from the float 0.1, and 2**53 + 1 as an
integer equals no float. docs/equality.md states the rules for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from ..lake.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DECIMAL_SCALE_MAX",
    "Family",
    "Form",
    "compatible",
    "decimal_words",
    "exact_decimal",
    "family",
    "float_words",
    "storage_type",
    "temporal_words",
    "unsigned_words",
]

Words = tuple["NDArray[np.uint64]", "NDArray[np.uint8] | int"]
"""Canonical words with the form of each, or with the one form of all."""

DECIMAL_SCALE_MAX: Final = 76
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
NAN_BITS: Final = np.uint64(0x7FF8_0000_0000_0000)
DAY_MS: Final = 86_400_000


class Form(IntEnum):
    """Which canonical form a word is in: it selects the key under which the word is hashed.

    The temporal kinds have four forms each, at ``base + TimeForm``; ``DECIMAL + s`` is the form of scale s.
    """

    NULL = 0
    BOOL = 1
    INTEGER = 2
    FLOAT = 3
    UNSIGNED = 4
    LARGE = 5
    DAYS = 6
    DAY_MS = 7
    STRING = 8
    BINARY = 9
    LIST = 10
    STRUCT = 11
    MAP = 12
    INTERVAL = 13
    NAIVE = 16
    ZONED = 20
    TIME = 24
    DURATION = 28
    DECIMAL = 64
    COUNT = 64 + DECIMAL_SCALE_MAX + 1


MICROSECONDS, NANOSECONDS, SECONDS, MILLISECONDS = range(4)
"""Added to a temporal base form: microseconds when they are whole and fit int64, else the coarsest exact unit."""


@dataclass(frozen=True, slots=True)
class Family:
    """Types whose values compare with each other. ``kind`` names it; nested kinds have ``children``.

    A struct's children are sorted by field name, ``names`` holds them; a map has key and value, a list its element.
    """

    kind: str
    children: tuple[Family, ...] = ()
    names: tuple[str, ...] = ()


def storage_type(t: pa.DataType) -> pa.DataType:
    """The type that holds the values of ``t``: extension, dictionary and run-end layers taken off."""
    while True:
        if isinstance(t, pa.BaseExtensionType):
            t = t.storage_type
        elif pa.types.is_dictionary(t) or pa.types.is_run_end_encoded(t):
            t = t.value_type
        else:
            return t


def family(t: pa.DataType) -> Family:
    """The family of an Arrow type.

    Extension types count as their storage. A union has no family: InvalidInput.
    """
    t = storage_type(t)
    for kind, tests in _KINDS.items():
        if any(test(t) for test in tests):
            return Family(kind)
    if pa.types.is_timestamp(t):
        return Family("timestamp" if t.tz is None else "timestamp with zone")
    if _is_list(t):
        return Family("list", (family(t.value_type),))
    if pa.types.is_map(t):
        return Family("map", (family(t.key_type), family(t.item_type)))
    if pa.types.is_struct(t):
        fields = sorted((t.field(i) for i in range(t.num_fields)), key=lambda field: str(field.name))
        return Family("struct", tuple(family(f.type) for f in fields), tuple(f.name for f in fields))
    raise InvalidInput(
        f"columns of type {t} cannot be compared: expected numbers, booleans, strings, binary, temporal types, lists, "
        "structs or maps of them. Cast the column, or leave the table out."
    )


def compatible(child: Family, parent: Family) -> bool:
    """Whether values of the two families may be equal. A column of type null goes with anything, at any depth."""
    if child.kind == "null" or parent.kind == "null":
        return True
    return (
        child.kind == parent.kind
        and child.names == parent.names
        and len(child.children) == len(parent.children)
        and all(compatible(c, p) for c, p in zip(child.children, parent.children, strict=True))
    )


def _is_list(t: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(t)
        or pa.types.is_large_list(t)
        or pa.types.is_fixed_size_list(t)
        or pa.types.is_list_view(t)
        or pa.types.is_large_list_view(t)
    )


_KINDS: Final[dict[str, tuple[Any, ...]]] = {
    "null": (pa.types.is_null,),
    "bool": (pa.types.is_boolean,),
    "number": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
    "string": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    "binary": (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
        pa.types.is_binary_view,
    ),
    "date": (pa.types.is_date,),
    "time": (pa.types.is_time,),
    "duration": (pa.types.is_duration,),
    "interval": (pa.types.is_interval,),
}


# --- canonical words, vectorised ---------------------------------------------------------------------------------


def float_words(values: NDArray[np.floating[Any]]) -> Words:
    """Words and forms of floats of any width: shape (n,) in, (n,) uint64 out; ``values`` is not written."""
    wide = values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        integers = wide.astype(np.int64)
        integral = (integers.astype(np.float64) == wide) & (wide < 2.0**63)
    if integral.all():
        return integers.view(np.uint64), int(Form.INTEGER)
    words = np.where(np.isnan(wide), NAN_BITS, wide.view(np.uint64))
    words = np.where(integral, integers.view(np.uint64), words)
    return words, np.where(integral, np.uint8(Form.INTEGER), np.uint8(Form.FLOAT))


def unsigned_words(values: NDArray[np.uint64]) -> Words:
    """Words and forms of uint64 values, shape (n,)."""
    high = values > np.uint64(INT64_MAX)
    if not high.any():
        return values, int(Form.INTEGER)
    exact = high & ((values & np.uint64(0x7FF)) == 0)  # 64 significant bits, of which a float64 holds the upper 53
    words = np.where(exact, values.astype(np.float64).view(np.uint64), values)
    forms = np.where(exact, np.uint8(Form.FLOAT), np.uint8(Form.UNSIGNED))
    return words, np.where(high, forms, np.uint8(Form.INTEGER))


def fifth_inverse(scale: int) -> int:
    """The inverse of 5**scale mod 2**64, as an int64: multiplying by it divides, where the division leaves no rest."""
    inverse: int = pow(5**scale, -1, 2**64)
    return inverse - 2**64 if inverse >= 2**63 else inverse


def fifth_bound(scale: int) -> int:
    """The largest quotient of an int64 by 5**scale: a product with the inverse beyond it comes from a rest."""
    bound: int = INT64_MAX // 5**scale
    return bound


def decimal_words(unscaled: NDArray[np.int64], scale: int) -> Words:
    """Words and forms of unscaled / 10**scale, 0 <= scale <= 76, shape (n,)."""
    if scale == 0:
        return unscaled.view(np.uint64), int(Form.INTEGER)
    forms = np.full(len(unscaled), Form.DECIMAL + scale, np.uint8)
    # unscaled / 10**s = (unscaled / 5**s) / 2**s: a float64 holds it if the division leaves no rest and 53 bits do.
    fifths, divides = _divide_fives(unscaled, scale)
    whole = fifths >> min(scale, 63)
    integral = divides & (whole << min(scale, 63) == fifths)
    words = np.where(integral, whole, unscaled)
    forms[integral] = Form.INTEGER
    rest = np.flatnonzero(divides & ~integral)
    if len(rest):
        floats = fifths[rest].astype(np.float64)
        exact = floats.astype(np.int64) == fifths[rest]
        words[rest[exact]] = np.ldexp(floats[exact], -scale).view(np.int64)
        forms[rest[exact]] = Form.FLOAT
    rest = np.flatnonzero(forms >= Form.DECIMAL)
    while len(rest):  # take off trailing zeros: 1.10 is 1.1
        fifths, divides = _divide_fives(words[rest], 1)
        divides &= (fifths & 1) == 0
        rest = rest[divides]
        words[rest] = fifths[divides] >> 1
        forms[rest] -= 1
    return words.view(np.uint64), forms


def _divide_fives(values: NDArray[np.int64], power: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """values / 5**power and where that is exact; elsewhere the quotient means nothing."""
    bound = fifth_bound(power)
    quotients = values * np.int64(fifth_inverse(power))
    return quotients, (quotients >= -bound) & (quotients <= bound)


def exact_decimal(unscaled: int, scale: int) -> tuple[int, int | str]:
    """Form and word of one decimal of any size, in exact arithmetic; the word of a LARGE one is text."""
    exact = Fraction(unscaled) / Fraction(10) ** scale
    if exact.denominator == 1 and INT64_MIN <= exact.numerator <= INT64_MAX:
        return Form.INTEGER, exact.numerator % 2**64
    try:
        as_float = float(exact)
    except OverflowError:  # a decimal256 of large negative scale
        as_float = 0.0
    if as_float and Fraction(as_float) == exact:
        return Form.FLOAT, int(np.float64(as_float).view(np.uint64))
    if exact.denominator == 1 and 0 <= exact.numerator < 2**64:
        return Form.UNSIGNED, exact.numerator
    while unscaled % 10 == 0:
        unscaled, scale = unscaled // 10, scale - 1
    if 1 <= scale <= DECIMAL_SCALE_MAX and INT64_MIN <= unscaled <= INT64_MAX:
        return Form.DECIMAL + scale, unscaled % 2**64
    return Form.LARGE, f"{unscaled}E{-scale}"


def temporal_words(values: NDArray[np.int64], unit: str, base: int) -> Words:
    """Words and forms of times in ``unit`` (s, ms, us, ns), shape (n,). ``base``: the family's first form."""
    if unit == "us":
        return values.view(np.uint64), base + MICROSECONDS
    if unit == "ns":
        whole = values // 1000
        exact = whole * 1000 == values
        words = np.where(exact, whole, values)
        forms = np.where(exact, np.uint8(base + MICROSECONDS), np.uint8(base + NANOSECONDS))
        return words.view(np.uint64), forms
    factor = 1_000_000 if unit == "s" else 1000
    bound = INT64_MAX // factor
    fits = (values <= bound) & (values >= -bound - 1)
    words = np.where(fits, values * np.int64(factor), values)
    if fits.all():
        return words.view(np.uint64), base + MICROSECONDS
    # -bound - 1 times the factor may lie just below int64: take such values back by dividing.
    fits &= words // factor == values
    words = np.where(fits, words, values)
    if unit == "s":
        forms = np.where(fits, np.uint8(base + MICROSECONDS), np.uint8(base + SECONDS))
        return words.view(np.uint64), forms
    seconds = values // 1000
    even = ~fits & (seconds * 1000 == values)
    words = np.where(even, seconds, words)
    forms = np.where(fits, np.uint8(base + MICROSECONDS), np.uint8(base + MILLISECONDS))
    return words.view(np.uint64), np.where(even, np.uint8(base + SECONDS), forms)
