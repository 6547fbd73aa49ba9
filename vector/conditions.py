"""The conditions over an index's attributes: each text parsed once, then bound to parameters at every search.

What cannot be said as sets of keys is left to DuckDB as a whole; it is slower and says the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import pyarrow as pa

from ..lake import evaluation
from ..lake.conversion import rows_without_columns
from ..lake.limits import WHERE_CACHE_ENTRIES
from ..lake.predicate import Params, bind_where, named_params
from ..lake.where import Tree, parse_where
from .binding import Binder
from .bound import Bound, Judged
from .comparison import LeftToDuckDB
from .constants import plain

__all__ = ["Conditions"]

PLAIN: Final = frozenset((type(None), bool, int, float, str, bytes, Decimal, date, datetime))
"""Types whose equal values say the same."""


class Conditions:
    """Conditions over attributes of one schema, each text parsed once.

    ``others`` are columns that conditions may name too: only DuckDB judges those.
    """

    __slots__ = ("_bound", "_every", "_parsed", "schema")

    def __init__(self, schema: pa.Schema, others: pa.Schema | None = None) -> None:
        self.schema = schema
        self._every = schema if others is None else pa.schema([*schema, *others])
        self._parsed: dict[str, tuple[Tree, tuple[str, ...]]] = {}
        self._bound: dict[object, Bound] = {}

    def bound(self, text: str, params: Params | None) -> Bound:
        """The condition of a text with its parameters; the same object for the same values, if they come again soon.

        InvalidSQL as :func:`.bind_where` raises it.
        """
        told = _told(text, params)
        known = None if told is None else self._bound.get(told)
        if known is not None:
            return known
        found = self._parsed.get(text)
        if found is None:
            where = parse_where(text)
            found = where.resolve(self._every.names)[0], where.parameters
            _put(self._parsed, text, found)
        tree, names = found
        values = {name: plain(value) for name, value in named_params(text, names, params).items()}
        try:
            made = Binder(self.schema, values).bound(tree, False)
        except LeftToDuckDB:
            if not _is_stable(frozenset(_functions(tree))):
                told = None
            made = self._judged(text, values if isinstance(params, Mapping) else list(values.values()), told)
        if told is not None:
            _put(self._bound, told, made)
        return made

    def _judged(self, text: str, params: Params, told: object) -> Judged:
        schema = self._every
        predicate = bind_where(text, schema, params)
        # Run now, on one row: an error should not depend on the rows that there are
        nothing = pa.table([pa.nulls(1, schema.field(name).type) for name in predicate.columns], predicate.columns)
        predicate.matches(nothing if predicate.columns else rows_without_columns(1, schema))
        return Judged(predicate, object() if told is None else told)


def _put(cache: dict[Any, Any], key: Any, value: Any) -> None:
    if len(cache) >= WHERE_CACHE_ENTRIES:
        cache.clear()
    cache[key] = value


def _told(text: Any, params: Params | None) -> object:
    """What tells a condition with its values from every other; None if nothing quick does."""
    if not params:
        return text if isinstance(text, str) else None
    if not isinstance(params, Mapping | list | tuple):
        return None
    given = params.items() if isinstance(params, Mapping) else enumerate(params)
    told = []
    for name, value in given:
        if type(value) in PLAIN:
            told.append((name, type(value), value))
        elif isinstance(value, list | tuple) and all(type(each) in PLAIN for each in value):
            told.append((name, tuple, tuple((type(each), each) for each in value)))
        else:
            return None
    return text, tuple(told)


def _functions(tree: Any) -> Iterator[str]:
    """The names of the functions in a condition."""
    if isinstance(tree, Mapping):
        if tree.get("class") == "FUNCTION":
            yield str(tree["function_name"])
        for child in tree.values():
            yield from _functions(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from _functions(child)


@lru_cache(WHERE_CACHE_ENTRIES)
def _is_stable(functions: frozenset[str]) -> bool:
    """Whether these functions say the same of the same row for ever: unlike now() and random()."""
    sql = "SELECT count(*) FROM duckdb_functions() WHERE list_contains(?, function_name) AND stability <> 'CONSISTENT'"
    return not functions or evaluation.one_row(sql, [sorted(functions)]) == (0,)
