"""The conditions over an index's attributes: each text parsed once, then bound to parameters at every search.

What cannot be said as sets of keys is left to DuckDB as a whole; it is slower and says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from ..lake.conversion import rows_without_columns
from ..lake.limits import WHERE_CACHE_ENTRIES
from ..lake.predicate import Params, bind_where, named_params
from ..lake.where import Tree, parse_where
from .binding import Binder
from .bound import Bound, Judged
from .comparison import LeftToDuckDB
from .constants import plain

__all__ = ["Conditions"]


class Conditions:
    """Conditions over attributes of one schema, each text parsed once."""

    __slots__ = ("_constant", "_parsed", "schema")

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._parsed: dict[str, tuple[Tree, tuple[str, ...]]] = {}
        self._constant: dict[str, Bound] = {}

    def bound(self, text: str, params: Params | None) -> Bound:
        """The condition of a text with its parameters. InvalidSQL as :func:`.bind_where` raises it."""
        ready = self._constant.get(text) if not params else None
        if ready is not None:
            return ready
        found = self._parsed.get(text)
        if found is None:
            where = parse_where(text)
            found = where.resolve(self.schema.names)[0], where.parameters
            if len(self._parsed) >= WHERE_CACHE_ENTRIES:
                self._parsed.clear()
                self._constant.clear()
            self._parsed[text] = found
        tree, names = found
        values = {name: plain(value) for name, value in named_params(text, names, params).items()}
        try:
            made = Binder(self.schema, values).bound(tree, False)
        except LeftToDuckDB:
            made = self._judged(text, values if isinstance(params, Mapping) else list(values.values()), values)
        if not names:
            self._constant[text] = made
        return made

    def _judged(self, text: str, params: Params, values: Mapping[str, Any]) -> Judged:
        predicate = bind_where(text, self.schema, params)
        # Run now, on one row: an error should not depend on the rows that there are
        nothing = pa.table([pa.nulls(1, self.schema.field(name).type) for name in predicate.columns], predicate.columns)
        predicate.matches(nothing if predicate.columns else rows_without_columns(1, self.schema))
        plain = all(map(_is_plain, values.values()))
        return Judged(predicate, (text, repr(sorted(values.items()))) if plain else object())


def _is_plain(value: Any) -> bool:
    """Whether a value's repr tells it from every other."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str, bytes, Decimal, date, datetime, timedelta)
