"""The text of a ``where``: parsed by DuckDB, checked to be one condition and nothing more, its columns resolved.

Text never runs as it came. DuckDB's parser turns it into a tree; the tree must be that of ``SELECT * FROM t WHERE …``
with nothing else in it; columns are replaced by names of ours; and DuckDB writes SQL anew from the tree. So comments,
a closing parenthesis, a second statement, ORDER BY or a subquery have no way in. Columns are matched exactly first,
then case-insensitively if only one fits, since DuckDB folds case and Arrow does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from . import evaluation
from .errors import InvalidSQL
from .limits import WHERE_BYTES, WHERE_CACHE_ENTRIES

__all__ = ["Where", "parse_where"]

Tree = dict[str, Any]
"""A node of DuckDB's tree: its JSON object, with "class" and "type"."""

_PREFIX = "SELECT * FROM t WHERE "
_ALLOWED = {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT"}
_ALLOWED |= {"FUNCTION", "LAMBDA", "OPERATOR", "PARAMETER", "TYPE"}
_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "*",
    "POSITIONAL_REFERENCE": "a column by position",
    "DEFAULT": "DEFAULT",
}


@dataclass(frozen=True, slots=True)
class Where:
    """A condition that parsed. ``document`` is DuckDB's tree of the whole statement as JSON text.

    ``parameters`` are the names of its parameters in order of first use; ``?`` are named "1", "2" ….
    """

    text: str
    document: str
    parameters: tuple[str, ...]

    def resolve(self, names: Sequence[str]) -> tuple[Tree, dict[str, str], str]:
        """The condition for a table with columns ``names``.

        Returns its tree with exact column names in it, the columns it concerns each with the name it has in the SQL,
        and the SQL. Raises InvalidSQL that names an unknown or ambiguous column, its place, and what there is.
        """
        tree = _condition(json.loads(self.document))
        for reference in _references(tree, frozenset()):
            path = reference["column_names"]
            path[0] = _exact(path[0], names, reference.get("query_location", 0) - len(_PREFIX), self.text)
        document = json.loads(self.document)
        renamed: dict[str, str] = {}
        for mine, exact in zip(
            _references(_condition(document), frozenset()), _references(tree, frozenset()), strict=True
        ):
            name = exact["column_names"][0]
            mine["column_names"][0] = renamed.setdefault(name, f"column {len(renamed)}")
        return tree, renamed, _written(document)


def _condition(document: Tree) -> Tree:
    tree: Tree = document["statements"][0]["node"]["where_clause"]
    return tree


@lru_cache(maxsize=WHERE_CACHE_ENTRIES)
def parse_where(text: str) -> Where:
    """The condition that the text holds; InvalidSQL says what else was found and where."""
    import duckdb

    if not isinstance(text, str):
        raise InvalidSQL(f"where must be SQL text, found {type(text).__name__}; values go into params")
    try:
        num_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidSQL(f"where is not valid Unicode: {error}") from error
    if num_bytes > WHERE_BYTES:
        raise InvalidSQL(f"where has {num_bytes:,} bytes, expected at most {WHERE_BYTES:,}: pass values as params")
    if not text.strip() or "\0" in text:
        raise InvalidSQL(
            f"where is empty or holds a zero character: {text[:40]!r}; expected a condition, as in 'a > 1'"
        )
    for offset, kind in duckdb.tokenize(text):
        if kind == duckdb.token_type.comment:
            raise InvalidSQL(f"where holds a comment at byte {offset}; expected a condition only: {text!r}")
    document = _serialized(_PREFIX, text)
    _serialized(_PREFIX + "(", text, ")")  # a condition stays one in parentheses; ORDER BY or "; DROP" does not
    _check_frame(document, text)
    tree = _condition(document)
    for node in _nodes(tree):
        if node["class"] not in _ALLOWED:
            what = _REFUSED.get(node["class"], node["class"].lower())
            raise InvalidSQL(f"where holds {what}, which a condition on one table's rows cannot: {text!r}")
    names = dict.fromkeys(node["identifier"] for node in _nodes(tree) if node["class"] == "PARAMETER")
    return Where(text, json.dumps(document), tuple(names))


def _serialized(before: str, text: str, after: str = "") -> Tree:
    import duckdb

    try:
        (reply,) = evaluation.one_row("SELECT json_serialize_sql(?::VARCHAR)", [before + text + after])
    except duckdb.Error as error:
        raise InvalidSQL(f"where does not parse: {error}: {text!r}") from error
    document: Tree = json.loads(reply)
    if document["error"]:
        place = int(document.get("position") or len(before)) - len(before)
        raise InvalidSQL(f"where does not parse at byte {max(0, place)}: {document['error_message']}: {text!r}")
    return document


@lru_cache(maxsize=1)
def _empty_frame() -> Tree:
    return _serialized(_PREFIX, "true")


def _check_frame(document: Tree, text: str) -> None:
    """All but the condition must be what it is for the plainest condition."""
    frame = json.loads(json.dumps(document))
    plain = _empty_frame()
    same = len(frame["statements"]) == 1 and frame["statements"][0]["node"].get("type") == "SELECT_NODE"
    if same:
        frame["statements"][0]["node"]["where_clause"] = plain["statements"][0]["node"]["where_clause"]
        frame["statements"][0]["named_param_map"] = plain["statements"][0]["named_param_map"]
        same = frame == plain
    if not same:
        raise InvalidSQL(f"where holds more than a condition: {text!r}; put ORDER BY, LIMIT and the like into sql()")


def _nodes(value: Any) -> Iterator[Tree]:
    if isinstance(value, dict):
        if "class" in value:
            yield value
        elif "node" in value and "named_param_map" in value:
            yield {"class": "SUBQUERY"}
        for child in value.values():
            yield from _nodes(child)
    elif isinstance(value, list):
        for child in value:
            yield from _nodes(child)


def _references(value: Any, bound: frozenset[str]) -> Iterator[Tree]:
    """Column references in the order of the tree; names that a lambda binds are none."""
    if isinstance(value, list):
        for child in value:
            yield from _references(child, bound)
        return
    if not isinstance(value, dict):
        return
    kind = value.get("class")
    if kind == "COLUMN_REF":
        if value["column_names"][0].lower() not in bound:
            yield value
        return
    if kind == "LAMBDA":
        inner = {node["column_names"][0].lower() for node in _nodes(value["lhs"]) if node["class"] == "COLUMN_REF"}
        yield from _references(value["expr"], bound | inner)
        return
    for child in value.values():
        yield from _references(child, bound)


def _exact(name: str, names: Sequence[str], place: int, text: str) -> str:
    if name in names:
        return name
    folded = [other for other in names if other.lower() == name.lower()]
    if len(folded) == 1:
        return folded[0]
    shown = ", ".join(repr(other) for other in (folded or list(names))[:20]) or "none"
    if folded:
        raise InvalidSQL(
            f"column {name!r} at byte {place} of where could be any of {shown}: write it exactly: {text!r}"
        )
    more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
    raise InvalidSQL(f"where names an unknown column {name!r} at byte {place}; the columns are {shown}{more}: {text!r}")


def _written(document: Mapping[str, Any]) -> str:
    import duckdb

    try:
        (sql,) = evaluation.one_row("SELECT json_deserialize_sql(?::JSON)", [json.dumps(document)])
    except duckdb.Error as error:
        raise InvalidSQL(f"where cannot be run: {error}") from error
    if not sql.startswith(_PREFIX):
        raise InvalidSQL(f"where cannot be run: DuckDB wrote it as {sql!r}")
    return str(sql[len(_PREFIX) :])
