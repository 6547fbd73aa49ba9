"""A condition as DuckDB parsed it, bound to parameters: rows for which it is true, as sets of keys.

Only true counts, so NOT is pushed down to the comparisons, where it keeps NULL out: a row fails ``x = 1`` and
``NOT x = 1`` alike when x is NULL. What is not listed here, or could round, is left to DuckDB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from .bound import ALWAYS, NEVER, Both, Bound, Either, Holds, InKeys, IsNull
from .comparison import LeftToDuckDB, compared, domain_of
from .constants import beside, value_of
from .intervals import complement, intersection, union
from .keys import is_list, is_text

if TYPE_CHECKING:
    from ..lake.where import Tree

__all__ = ["Binder"]

COMPARISONS: Final = {
    "COMPARE_EQUAL": ("=", "=", "<>"),
    "COMPARE_NOTEQUAL": ("<>", "<>", "="),
    "COMPARE_LESSTHAN": ("<", ">", ">="),
    "COMPARE_LESSTHANOREQUALTO": ("<=", ">=", ">"),
    "COMPARE_GREATERTHAN": (">", "<", "<="),
    "COMPARE_GREATERTHANOREQUALTO": (">=", "<=", "<"),
}
"""Each operator, with its sides exchanged, and denied."""
HOLDS_ONE: Final = {"contains", "list_contains", "list_has", "array_contains", "array_has"}
HOLDS_ANY: Final = {"list_has_any", "array_has_any", "&&"}
HOLDS_ALL: Final = {"list_has_all", "array_has_all", "@>"}


@dataclass(frozen=True, slots=True)
class Binder:
    """Turns DuckDB's tree into a bound condition; raises LeftToDuckDB where it cannot answer for it."""

    schema: pa.Schema
    params: Mapping[str, Any]

    def bound(self, tree: Tree, denied: bool) -> Bound:
        """The rows for which a part is true; false, if ``denied``."""
        reader = _READERS.get(tree["class"])
        if reader is None:
            raise LeftToDuckDB
        return reader(self, tree, denied)

    def _conjunction(self, tree: Tree, denied: bool) -> Bound:
        parts = [self.bound(child, denied) for child in tree["children"]]
        return _joined(parts, (tree["type"] == "CONJUNCTION_AND") != denied)

    def _constant(self, tree: Tree, denied: bool) -> Bound:
        value = self._value(tree)
        if value is not None and not isinstance(value, bool):
            raise LeftToDuckDB
        return NEVER if value is None or value == denied else ALWAYS

    def _column_alone(self, tree: Tree, denied: bool) -> Bound:
        name, kind = self._column(tree)
        if not pa.types.is_boolean(kind):
            raise LeftToDuckDB
        return InKeys(name, compared(kind, "=", not denied))

    def _comparison(self, tree: Tree, denied: bool) -> Bound:
        operators = COMPARISONS.get(tree["type"])
        if operators is None:
            raise LeftToDuckDB
        left, right, operator = tree["left"], tree["right"], operators[0]
        if left["class"] != "COLUMN_REF":
            left, right, operator = right, left, operators[1]
        name, kind = self._column(left)
        operator = DENIED[operator] if denied else operator
        return self._compared(name, kind, operator, beside([self._value(right)], kind))

    def _between(self, tree: Tree, denied: bool) -> Bound:
        name, kind = self._column(tree["input"])
        low, high = beside([self._value(tree[end]) for end in ("lower", "upper")], kind)
        if denied:
            return _joined([self._compared(name, kind, "<", [low]), self._compared(name, kind, ">", [high])], False)
        return _joined([self._compared(name, kind, ">=", [low]), self._compared(name, kind, "<=", [high])], True)

    def _operator(self, tree: Tree, denied: bool) -> Bound:
        kind, children = tree["type"], tree["children"]
        if kind == "OPERATOR_NOT":
            return self.bound(children[0], not denied)
        if kind in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            return IsNull(self._column(children[0])[0], (kind == "OPERATOR_IS_NULL") != denied)
        if kind in ("COMPARE_IN", "COMPARE_NOT_IN"):
            name, of = self._column(children[0])
            wanted = beside([self._value(child) for child in children[1:]], of)
            return self._among(name, of, wanted, (kind == "COMPARE_NOT_IN") != denied)
        raise LeftToDuckDB

    def _among(self, name: str, kind: pa.DataType, wanted: list[Any], denied: bool) -> Bound:
        """``name IN (wanted)``."""
        if denied and any(value is None for value in wanted):
            return NEVER
        return self._compared(name, kind, "=", wanted, denied)

    def _compared(self, name: str, kind: pa.DataType, operator: str, values: list[Any], denied: bool = False) -> Bound:
        """Rows that compare so with one of the values; with none of them, if ``denied``."""
        if is_list(kind):
            raise LeftToDuckDB
        found = union(interval for value in values for interval in compared(kind, operator, value))
        return InKeys(name, complement(found, domain_of(kind)) if denied else found)

    def _function(self, tree: Tree, denied: bool) -> Bound:
        called = tree["function_name"]
        arguments = [argument["expression"] for argument in tree["arguments"]]
        if len(arguments) != 2 or any(argument["class"] == "FUNCTION" for argument in arguments[:1]):
            raise LeftToDuckDB
        if called in HOLDS_ONE and arguments[0]["class"] == "PARAMETER":  # column IN $list
            return self._among_listed(arguments, denied)
        name, kind = self._column(arguments[0])
        if not is_list(kind) or called not in HOLDS_ONE | HOLDS_ANY | HOLDS_ALL:
            raise LeftToDuckDB
        wanted = self._value(arguments[1]) if called in HOLDS_ONE else self._listed(arguments[1])
        if wanted is None:
            return NEVER
        texts: list[Any] = [wanted] if called in HOLDS_ONE else [each for each in wanted if each is not None]
        if not all(isinstance(each, str) for each in texts):
            raise LeftToDuckDB
        if called == "contains" and texts == [""]:  # its optimiser takes this for a search in a text: true
            raise LeftToDuckDB
        return Holds(name, tuple(dict.fromkeys(texts)), called in HOLDS_ALL, denied)

    def _among_listed(self, arguments: list[Tree], denied: bool) -> Bound:
        wanted, (name, kind) = self.params[arguments[0]["identifier"]], self._column(arguments[1])
        if wanted is None:
            return NEVER
        if not isinstance(wanted, list | tuple):
            raise LeftToDuckDB
        given = [value for value in wanted if value is not None]  # NULL in a list equals nothing, even denied
        if not is_text(kind) and any(isinstance(value, str) for value in given):
            raise LeftToDuckDB
        return self._compared(name, kind, "=", beside(given, kind), denied)

    def _column(self, tree: Tree) -> tuple[str, pa.DataType]:
        if tree["class"] != "COLUMN_REF" or len(tree["column_names"]) != 1:
            raise LeftToDuckDB
        name = str(tree["column_names"][0])
        if self.schema.get_field_index(name) < 0:
            raise LeftToDuckDB
        return name, self.schema.field(name).type

    def _listed(self, tree: Tree) -> list[Any] | None:
        """The values of a list that is a parameter or written out."""
        if tree["class"] == "PARAMETER":
            wanted = self._value(tree)
            if wanted is not None and not isinstance(wanted, list | tuple):
                raise LeftToDuckDB
            return None if wanted is None else list(wanted)
        if tree["class"] == "FUNCTION" and tree["function_name"] == "list_value":
            return [self._value(argument["expression"]) for argument in tree["arguments"]]
        raise LeftToDuckDB

    def _value(self, tree: Tree) -> Any:
        return value_of(tree, self.params)


DENIED: Final = {operator: denied for operator, _, denied in COMPARISONS.values()}
_READERS: Final[dict[str, Callable[[Binder, Tree, bool], Bound]]] = {
    "CONJUNCTION": Binder._conjunction,
    "CONSTANT": Binder._constant,
    "PARAMETER": Binder._constant,
    "COLUMN_REF": Binder._column_alone,
    "COMPARISON": Binder._comparison,
    "BETWEEN": Binder._between,
    "OPERATOR": Binder._operator,
    "FUNCTION": Binder._function,
}


def _joined(parts: list[Bound], every: bool) -> Bound:
    """The parts in one, those about the same attribute's values together."""
    together: dict[str, InKeys] = {}
    others: list[Bound] = []
    for part in parts:
        if not isinstance(part, InKeys):
            others.append(part)
            continue
        held = together.get(part.attribute)
        if held is not None:
            pair = held.intervals, part.intervals
            together[part.attribute] = InKeys(
                part.attribute, intersection(*pair) if every else union(pair[0] + pair[1])
            )
        else:
            together[part.attribute] = part
    made = (*together.values(), *others)
    if len(made) == 1:
        return made[0]
    return Both(made) if every else Either(made)
