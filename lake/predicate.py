"""A ``where`` made ready for one table: what it reads, where it cannot match, and which rows it matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .conversion import no_rows
from .errors import InvalidSQL
from .evaluation import matching_rows
from .limits import WHERE_CACHE_ENTRIES
from .pruning import may_be_true
from .where import Tree, parse_where

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .statistics import Bounds

__all__ = ["Params", "Predicate", "bind_where", "named_params"]

Params = Mapping[str, Any] | Sequence[Any]
"""Values of a ``where``: by name for ``$name``, in order for ``?``."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    tree: Tree
    names: Mapping[str, str]
    sql: str
    parameters: tuple[str, ...]
    types: Mapping[str, pa.DataType]


@lru_cache(maxsize=WHERE_CACHE_ENTRIES)
def _compiled(text: str, schema: pa.Schema) -> _Compiled:
    where = parse_where(text)
    tree, names, sql = where.resolve(schema.names)
    return _Compiled(tree, names, sql, where.parameters, {name: schema.field(name).type for name in names})


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition with its parameters bound. ``columns`` are those it reads, by exact name."""

    text: str
    columns: tuple[str, ...]
    _compiled: _Compiled
    _params: Params
    _named: Mapping[str, Any]

    def may_match(self, bounds: Mapping[str, Bounds], num_rows: int) -> bool:
        """Whether one of ``num_rows`` rows with these bounds by column can match. False is a proof."""
        return may_be_true(self._compiled.tree, bounds, num_rows, self._compiled.types, self._named)

    def matches(self, table: pa.Table) -> npt.NDArray[np.int64]:
        """Positions of the rows of ``table`` for which the condition is true, ascending int64.

        ``table`` has at least :attr:`columns`, or any number of rows and no columns when there are none. Raises
        InvalidSQL when DuckDB cannot bind or run the condition.
        """
        return matching_rows(table, self._compiled.names, self._compiled.sql, self._params)

    @property
    def tree(self) -> Tree:
        """DuckDB's tree of the condition, with exact column names in it."""
        return self._compiled.tree

    def check(self, schema: pa.Schema) -> None:
        """Raise the InvalidSQL that running on a table of this schema would, without rows."""
        self.matches(no_rows(pa.schema([schema.field(name) for name in self.columns])))


def bind_where(text: str, schema: pa.Schema, params: Params | None = None) -> Predicate:
    """The condition of ``text`` for a table of this schema. Compiled once per text and schema.

    Raises InvalidSQL when it does not parse, holds more than a condition, names unknown columns, or when ``params`` are
    not exactly the parameters that it names.
    """
    compiled = _compiled(text, schema)
    given = named_params(text, compiled.parameters, params)
    values: Params = list(given.values()) if isinstance(params, Sequence) else given
    return Predicate(text, tuple(compiled.names), compiled, values, given)


def named_params(text: str, wanted: Sequence[str], params: Params | None) -> dict[str, Any]:
    """``params`` by name, those of a list by their number from "1"; InvalidSQL unless they are just those wanted."""
    if params is None:
        params = {}
    if isinstance(params, Mapping):
        given = {str(name): value for name, value in params.items()}
    elif isinstance(params, Sequence) and not isinstance(params, str | bytes):
        given = {str(i + 1): value for i, value in enumerate(params)}
    else:
        raise InvalidSQL(f"params must be a dict for $name or a list for ?, found {type(params).__name__}")
    missing, extra = [name for name in wanted if name not in given], [name for name in given if name not in wanted]
    if missing or extra:
        found = f"lacks {missing}" if missing else f"has {extra} too many"
        raise InvalidSQL(f"where {text!r} has the parameters {list(wanted)}; params {found}")
    return given
