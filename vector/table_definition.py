"""What an index over a table's column is: the column, who sees its rows, what conditions may name. A value, kept in the
lake's log as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from ..lake.errors import Corrupt, InvalidInput
from ..lake.limits import VECTOR_DIMENSIONS
from .attributes import declared
from .building import Settings
from .codes import layout
from .fine import checked_bits
from .graph import require
from .labels import Everyone, Label, checked
from .metrics import Metric, metric_named

__all__ = ["Definition", "defined", "dimensions"]


@dataclass(frozen=True, slots=True)
class Definition:
    """One index over a table.

    ``column`` holds the vectors, ``tenant`` the label or labels of who may see a row, None if everybody does;
    ``public`` is the value there that stands for everybody. ``attributes`` are columns that conditions find rows by, as
    far as the table has them. ``include`` are the columns kept beside the vectors, so that the rows of an answer need
    no data file; None stands for all.
    """

    column: str
    dim: int
    metric: Metric
    tenant: str | None
    public: Label | None
    attributes: tuple[str, ...]
    include: tuple[str, ...] | None
    graph: bool
    bits: int | None
    seed: int

    def settings(self, schema: pa.Schema, threads: int) -> Settings:
        """What segments over a table of this schema have in common."""
        attributes = self.attribute_types(schema) if self.attributes else None
        codes = layout(self.dim, self.seed)
        return Settings(self.dim, self.metric, codes, self.seed, threads, self.graph, attributes, self.bits)

    def attribute_types(self, schema: pa.Schema) -> pa.Schema:
        """The attributes with their types inside the index."""
        return declared({name: schema.field(name).type for name in self.attributes if name in schema.names})

    def kept(self, schema: pa.Schema) -> list[str]:
        """The columns of a table of this schema that its segments keep beside the vectors."""
        wanted = [name for name in schema.names if self.include is None or name in self.include]
        return [name for name in wanted if name != self.column or not self.vectors_are_values(schema)]

    def vectors_are_values(self, schema: pa.Schema) -> bool:
        """Whether the vectors inside are the column's values bit for bit; under cosine they are of length one."""
        return self.metric is not Metric.COSINE and bool(schema.field(self.column).type.value_type == pa.float32())

    def types(self, schema: pa.Schema) -> dict[str, str]:
        """The types of the columns that rows are found by. Where they change, what was made before is of no use."""
        names = [self.column, *self.attributes, *([self.tenant] if self.tenant else [])]
        return {name: str(schema.field(name).type) for name in names if name in schema.names}

    def check(self, table: str, schema: pa.Schema) -> None:
        """InvalidInput when rows of this schema cannot be searched by it."""
        fixed = dimensions(table, schema, self.column)
        if fixed not in (None, self.dim):
            raise InvalidInput(
                f"column {self.column!r} of table {table!r} has {fixed:,} dimensions, its index {self.dim:,}: drop the "
                "index and make it anew"
            )
        if self.tenant is not None:
            kind = _values(_field(table, schema, self.tenant, "tenant column").type)
            if not (pa.types.is_integer(kind) or _is_text(kind)):
                raise InvalidInput(
                    f"tenant column {self.tenant!r} of table {table!r} has the type {schema.field(self.tenant).type}; "
                    "expected texts or whole numbers, or lists of them"
                )

    def encoded(self) -> str:
        """As JSON."""
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        return json.dumps(told | {"metric": self.metric.name.lower()}, sort_keys=True)

    @classmethod
    def decoded(cls, text: str) -> Definition:
        """From JSON; Corrupt when it is none of ours."""
        try:
            told = json.loads(text)
            return cls(
                str(told["column"]),
                int(told["dim"]),
                metric_named(told["metric"]),
                told["tenant"],
                told["public"],
                tuple(map(str, told["attributes"])),
                None if told["include"] is None else tuple(map(str, told["include"])),
                bool(told["graph"]),
                None if told["bits"] is None else int(told["bits"]),
                int(told["seed"]),
            )
        except (ValueError, KeyError, TypeError, InvalidInput) as error:
            words = f"the definition of an index cannot be read: {error!r}; drop the index and make it anew"
            raise Corrupt(words) from error


def defined(
    table: str,
    schema: pa.Schema,
    column: str,
    dim: int | None,
    *,
    metric: str,
    tenant: str | None,
    public: Label | None,
    attributes: Iterable[str] | None,
    include: Iterable[str] | None,
    graph: bool,
    bits: int | None,
    seed: int,
) -> Definition:
    """The definition for a table of this schema; InvalidInput when the table cannot have it.

    ``dim`` is what its rows have, where the column's type does not say.
    """
    fixed = dimensions(table, schema, column)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise InvalidInput(f"seed {seed!r}: expected a whole number from 0 on")
    if graph:
        require()
    for names in (attributes, include):
        if names is None or (isinstance(names, Iterable) and not isinstance(names, str)):
            continue
        raise InvalidInput("attributes and include are lists of column names, as in attributes=['year', 'lang']")
    named = tuple(dict.fromkeys(attributes or ()))
    kept = None if include is None else tuple(dict.fromkeys(include))
    for name in named:
        _field(table, schema, name, "attribute")
    for name in kept or ():
        _field(table, schema, name, "column to include")
    if public is not None:
        if tenant is None:
            raise InvalidInput("public= is a value of the tenant column; say tenant= as well")
        if isinstance(public, Everyone):
            raise InvalidInput("public= is the int or str in the tenant column that stands for everybody")
        public = checked(public)
    wanted = fixed if fixed is not None else dim
    if wanted is None:
        raise InvalidInput(
            f"column {column!r} of table {table!r} holds no vector yet, so that its dimensions are not known; make the "
            "index once there are rows, or give the column a fixed_size_list type"
        )
    if not 1 <= wanted <= VECTOR_DIMENSIONS:
        raise InvalidInput(f"vectors of {wanted:,} dimensions: expected 1 to {VECTOR_DIMENSIONS:,}")
    made = Definition(
        column,
        wanted,
        metric_named(metric),
        tenant,
        public,
        named,
        kept,
        bool(graph),
        checked_bits(bits),
        int(seed),
    )
    made.check(table, schema)
    made.attribute_types(schema)
    return made


def dimensions(table: str, schema: pa.Schema, column: str) -> int | None:
    """The dimensions that the type of a vector column fixes, None if it fixes none; InvalidInput for another column."""
    kind = _field(table, schema, column, "column").type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise InvalidInput(
            f"column {column!r} of table {table!r} has the type {kind}; vectors stand in lists of numbers, best in "
            "fixed_size_list<float>[dim]"
        )
    return kind.list_size if pa.types.is_fixed_size_list(kind) else None


def _field(table: str, schema: pa.Schema, name: Any, what: str) -> pa.Field:
    if not isinstance(name, str):
        raise InvalidInput(f"{what} {name!r}: expected the name of a column of table {table!r}")
    if schema.get_field_index(name) < 0:
        shown = ", ".join(map(repr, schema.names[:20]))
        raise InvalidInput(f"{what} {name!r} is not in table {table!r}; it has {shown}")
    return schema.field(name)


def _values(kind: pa.DataType) -> pa.DataType:
    while pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
