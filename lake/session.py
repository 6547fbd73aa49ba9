"""SQL by DuckDB over one snapshot of the lake, in a private in-memory database that holds no tables.

Each call takes a cursor of its own. The tables that the query names become TEMP views over lists of files there, so a
call sees one snapshot, calls do not see each other, and nothing is left to clean up: the relation keeps its cursor.
A query that starts with SELECT or FROM and uses no views of the lake gets its tables as CTEs in front instead: a view
is bound when it is made and again when it is used, which reads the footer of its first file twice.

Names: DuckDB folds case, the lake does not. A name is looked up as written, then, if there is none, as the only one
that differs in case. One query cannot use two tables whose names differ in case only.

What may be run: one statement a call, that reads: SELECT and its kin (FROM, VALUES, WITH, PIVOT, DESCRIBE, SUMMARIZE,
SHOW TABLES), EXPLAIN, and COPY … TO a file. Python variables are never taken for tables. The time zone is UTC.
Functions that read files (``read_parquet``, ``read_csv``) are the caller's right.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from .attached import Attachment
from .errors import InvalidInput, InvalidSQL, LakeletError, NotFound, Unavailable
from .limits import RELATION_CACHE_ENTRIES, RELATION_TABLE_BYTES, WHERE_BYTES, WHERE_CACHE_ENTRIES
from .relation import Relation, attached_relation, owned_relation
from .snapshot import OwnedTable, View
from .sql_text import quote

if TYPE_CHECKING:
    import duckdb
    import fsspec

    from .store import Store

__all__ = ["Parameters", "Session", "Source", "sql_error"]

Parameters = Mapping[str, Any] | Sequence[Any] | None
"""Values for ``$name`` (a mapping) or ``?`` (a sequence)."""

Source = OwnedTable | Attachment | View
"""What a name of the lake stands for: a table of its own, an attached location as it is now, or a view."""

_READS = {"SELECT", "EXPLAIN", "COPY", "MULTI"}
_SHOW_TABLES = '"tables"'
_TAKE_CTES = {"select", "from"}


@dataclass(frozen=True, slots=True)
class _Statement:
    """What is known of a query by its text alone. ``certain``: the names are tables; otherwise they may be anything."""

    names: tuple[str, ...]
    certain: bool
    parameters: bool = False
    shows_tables: bool = False
    takes_ctes: bool = False


class Session:
    """DuckDB for one engine. Safe to use from many threads; connects when first asked."""

    def __init__(self, store: Store) -> None:
        """``store`` holds the files of the lake's own tables. DuckDB is loaded by the first query."""
        self._store = store
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._filesystems: set[str] = set()
        self._lock = threading.Lock()
        self._statement = lru_cache(WHERE_CACHE_ENTRIES)(self._parse)
        self._attached = lru_cache(RELATION_CACHE_ENTRIES)(attached_relation)
        self._owned: OrderedDict[tuple[str, int, int], Relation] = OrderedDict()
        self._closed = False

    def sql(
        self,
        query: str,
        params: Parameters,
        names: Collection[str],
        resolve: Callable[[str], Source],
    ) -> duckdb.DuckDBPyRelation:
        """The query's result as a lazy DuckDB relation over the lake's tables and views.

        ``names`` are those of all tables and views of one snapshot; ``resolve`` gives what one of them stands for, and
        is asked only for those that the query needs. Raises InvalidSQL when the query does not parse or bind or may
        not be run, and whatever ``resolve`` raises. What goes wrong while the relation is fetched is DuckDB's own
        error.
        """
        statement = self._statement(query)
        cursor = self.cursor()
        try:
            if statement.shows_tables:
                return cursor.sql("SELECT unnest($1::VARCHAR[]) AS name", params=[sorted(names)])
            scope = _Scope(self, cursor, names, resolve)
            skipped = scope.resolve(statement)
            return self._bind(cursor, scope.apply(query, statement.takes_ctes), params, skipped)
        except LakeletError:
            cursor.close()
            raise

    def check_view(self, sql: str) -> tuple[str, ...]:
        """Names of tables and views that the SELECT of a view refers to, as written.

        Raises InvalidSQL when the text does not parse, is no single SELECT, or has parameters.
        """
        statement = self._statement(sql)
        if not statement.certain or statement.shows_tables:
            raise InvalidSQL(
                "a view must be one SELECT. Write a SELECT; PIVOT, EXPLAIN, COPY and SHOW have no rows to keep."
            )
        if statement.parameters:
            raise InvalidSQL("a view cannot have parameters, since nobody supplies them later. Write the values out.")
        return statement.names

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A new connection to the session's database, closed by whoever asked for it."""
        with self._lock:
            if self._closed:
                raise InvalidInput("the engine is closed. Connect again.")
            if self._connection is None:
                self._connection = _connect()
            return self._connection.cursor()

    def relation(self, source: OwnedTable | Attachment) -> Relation:
        """The SELECT of a table over its files, kept while the table does not change."""
        if isinstance(source, Attachment):
            return self._attached(source)
        key = (source.table_id, source.schema_version, source.rows_version)
        with self._lock:
            known = self._owned.get(key)
            if known is not None:
                self._owned.move_to_end(key)
                return known
        made = owned_relation(self._store, source)
        if made.held_bytes > RELATION_TABLE_BYTES:
            return made
        with self._lock:
            self._owned[key] = made
            while len(self._owned) > RELATION_CACHE_ENTRIES:
                self._owned.popitem(last=False)
        return made

    def register(self, filesystem: fsspec.AbstractFileSystem | None) -> None:
        """Let DuckDB read the URIs of an fsspec file system; None is the local disk, which it reads anyway."""
        if filesystem is None:
            return
        protocols = filesystem.protocol
        protocol = protocols if isinstance(protocols, str) else protocols[0]
        with self._lock:
            if protocol not in self._filesystems and self._connection is not None:
                self._connection.register_filesystem(filesystem)
                self._filesystems.add(protocol)

    def close(self) -> None:
        """Give up the database: it goes with the last relation that is still held, and those stay usable."""
        with self._lock:
            self._closed = True
            self._connection = None  # closing it would close the cursors of those relations too

    def _bind(
        self,
        cursor: duckdb.DuckDBPyConnection,
        query: str,
        params: Parameters,
        skipped: Mapping[str, LakeletError],
    ) -> duckdb.DuckDBPyRelation:
        import duckdb

        try:
            relation = cursor.sql(query, params=params)
        except duckdb.Error as e:
            for name, reason in skipped.items():
                if f"with name {name} does not exist" in str(e):
                    raise reason from e
            raise sql_error(e) from e
        except (TypeError, ValueError, OverflowError) as e:
            raise InvalidSQL(f"a parameter cannot be given to DuckDB: {e}. Convert it to a plain value.") from e
        if relation is None:
            raise InvalidSQL("the query gives no result. Write a SELECT.")
        return relation

    def _parse(self, query: str) -> _Statement:
        """Parse a query, refuse what may not be run, and find the names that may be tables."""
        import duckdb

        if not isinstance(query, str):
            raise InvalidSQL(f"a query is text; found {type(query).__name__}.")
        if len(query) > WHERE_BYTES:
            raise InvalidSQL(f"the query has {len(query):,} characters; the limit WHERE_BYTES is {WHERE_BYTES:,}.")
        try:
            query.encode()
        except UnicodeEncodeError as e:
            raise InvalidSQL(f"the query is not valid Unicode: {e}.") from e
        cursor = self.cursor()
        try:
            statements = cursor.extract_statements(query)
            if len(statements) != 1:
                raise InvalidSQL(f"found {len(statements)} statements; one call runs one. Make a call for each.")
            kind = statements[0].type.name
            if kind not in _READS:
                raise InvalidSQL(f"found {kind.replace('_', ' ')}; db.sql only reads. {_mend(kind)}")
            if kind == "SELECT":
                (text,) = cursor.execute("SELECT json_serialize_sql(?)", [query]).fetchone() or ("",)
                tree = json.loads(text)
                if not tree["error"]:
                    return _read_tree(tree["statements"][0], query)
            return _Statement(_words(query, duckdb.tokenize(query)), certain=False)
        except duckdb.Error as e:
            raise sql_error(e) from e
        finally:
            cursor.close()


def _connect() -> duckdb.DuckDBPyConnection:
    try:
        import duckdb
    except ImportError as e:
        raise Unavailable("SQL needs DuckDB: pip install 'duckdb>=2.0'.") from e
    connection = duckdb.connect(":memory:", config={"python_enable_replacements": False})
    # the same answer on every machine, and the same as a ``where``: cursors inherit it
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    return connection


def _mend(kind: str) -> str:
    if kind in {"INSERT", "UPDATE", "DELETE", "MERGE_INTO"}:
        return "Change rows with db.write, db.merge or db.delete."
    if kind in {"CREATE", "CREATE_FUNC", "DROP", "ALTER"}:
        return (
            "Tables come and go with db.write, db.create_view, db.rename and db.drop; WITH names a query for one call."
        )
    return "Write a SELECT, EXPLAIN or COPY (SELECT …) TO a file."


def sql_error(error: Exception) -> LakeletError:
    """What a DuckDB error means to the caller, with its first line: InvalidSQL, NotFound or Unavailable."""
    import duckdb

    line = str(error).strip().partition("\n")[0] or type(error).__name__
    if "No files found that match" in line:
        return NotFound(f"{line}. Name files that are there.")
    if isinstance(error, duckdb.OperationalError | duckdb.InternalError | duckdb.FatalException):
        return Unavailable(f"DuckDB could not run the query: {line}.")
    if "base table" in line or "is not an table" in line:
        return InvalidSQL(f"{line}. db.sql only reads. {_mend('INSERT')}")
    return InvalidSQL(f"{line}. Mend the query or its parameters.")


# --- names in a query --------------------------------------------------------------------------------------------


def _read_tree(tree: Mapping[str, Any], query: str) -> _Statement:
    node = tree["node"]
    source = node.get("from_table") or {}
    shows = source.get("type") == "SHOW_REF" and source.get("table_name") == _SHOW_TABLES
    found: dict[str, None] = {}
    _collect(node, frozenset(), found)
    takes_ctes = query.lstrip()[:6].rstrip().lower() in _TAKE_CTES and not node["cte_map"]["map"]
    return _Statement(tuple(found), True, bool(tree.get("named_param_map")), shows, takes_ctes)


def _collect(node: Any, scope: frozenset[bytes], found: dict[str, None]) -> None:
    """Add to ``found`` the unqualified names of tables below ``node`` that no CTE in ``scope`` (folded) stands for."""
    if isinstance(node, list):
        for one in node:
            _collect(one, scope, found)
        return
    if not isinstance(node, dict):
        return
    kind = node.get("type")
    if kind == "BASE_TABLE" and not node["schema_name"] and not node["catalog_name"]:
        if _folded(node["table_name"]) not in scope:
            found[node["table_name"]] = None
    elif kind == "SHOW_REF" and node.get("table_name") and not node["schema_name"]:
        found[node["table_name"]] = None
    elif kind == "RECURSIVE_CTE_NODE":
        scope = scope | {_folded(node["cte_name"])}
    for key, value in node.items():
        if key == "cte_map":
            for one in value["map"]:  # a CTE sees those before it; its own name in it is the lake's
                _collect(one["value"], scope, found)
                scope = scope | {_folded(one["key"])}
    for key, value in node.items():
        if key != "cte_map":
            _collect(value, scope, found)


def _words(query: str, tokens: Sequence[tuple[int, Any]]) -> tuple[str, ...]:
    """Every word of a query that may be a table's name, unquoted. Offsets of ``tokens`` count bytes of UTF-8."""
    text = query.encode()
    ends = [offset for offset, _ in tokens[1:]] + [len(text)]
    words: dict[str, None] = {}
    for (start, kind), end in zip(tokens, ends, strict=True):
        if kind.name in {"identifier", "keyword"}:
            word = text[start:end].decode(errors="replace").strip()
            if len(word) >= 2 and word[0] == word[-1] == '"':
                word = word[1:-1].replace('""', '"')
            words[word] = None
    return tuple(words)


def _folded(name: str) -> bytes:
    """The name as DuckDB compares it: ASCII letters without case."""
    return name.encode(errors="surrogatepass").lower()


class _Scope:
    """What one query refers to: the tables and views of the lake, each once, and how the query gets to see them."""

    def __init__(
        self,
        session: Session,
        cursor: duckdb.DuckDBPyConnection,
        names: Collection[str],
        resolve: Callable[[str], Source],
    ) -> None:
        self._session = session
        self._cursor = cursor
        self._names = frozenset(names)
        self._source = resolve
        self._made: dict[bytes, tuple[str, str]] = {}
        self._has_views = False
        self._open: list[str] = []

    def resolve(self, statement: _Statement) -> dict[str, LakeletError]:
        """Find what the statement refers to; returns the words whose tables could not be read, where it is no sure
        thing that they are tables.
        """
        skipped: dict[str, LakeletError] = {}
        for written in statement.names:
            try:
                self._make(written)
            except LakeletError as e:
                if statement.certain:
                    raise
                skipped[written] = e
        return skipped

    def _make(self, written: str) -> None:
        name = self._name(written)
        if name is None:
            return  # perhaps a file, or a table of DuckDB's own: binding says so
        made, _ = self._made.get(_folded(name), ("", ""))
        if made == name:
            return
        if made:
            raise InvalidSQL(
                f"{made!r} and {name!r} in one query: SQL does not tell names apart that differ in case only. "
                "Rename one of them."
            )
        source = self._source(name)
        if isinstance(source, View):
            self._has_views = True
            text = self._view_text(source)
        else:
            relation = self._session.relation(source)
            self._session.register(relation.filesystem)
            for beside, rows in relation.tables.items():
                self._cursor.register(beside, rows)
            text = relation.text
        self._made[_folded(name)] = (name, text)  # after what it refers to: dicts keep their order

    def _name(self, written: str) -> str | None:
        """The lake's name for a name in a query, None when it has none."""
        if written in self._names:
            return written
        alike = self._by_folded.get(_folded(written), [])
        if len(alike) > 1:
            raise InvalidSQL(f"{written!r} may be {' or '.join(map(repr, alike))}. Write it as it is spelled.")
        return alike[0] if alike else None

    @cached_property
    def _by_folded(self) -> Mapping[bytes, list[str]]:
        found: dict[bytes, list[str]] = {}
        for name in sorted(self._names):
            found.setdefault(_folded(name), []).append(name)
        return found

    def _view_text(self, view: View) -> str:
        name = view.name
        if name in self._open:
            circle = " -> ".join((*self._open[self._open.index(name) :], name))
            raise InvalidSQL(f"the view {name!r} refers to itself: {circle}. Replace one of them.")
        self._open.append(name)
        try:
            for written in self._session.check_view(view.sql):
                self._make(written)
        finally:
            self._open.pop()
        return view.sql

    def apply(self, query: str, takes_ctes: bool) -> str:
        """The query to run once everything it refers to is there: as CTEs in front of it, or as TEMP views."""
        if takes_ctes and not self._has_views:
            ctes = ", ".join(f"{quote(name)} AS NOT MATERIALIZED ({text})" for name, text in self._made.values())
            return f"WITH {ctes}\n{query}" if ctes else query
        import duckdb

        for name, text in self._made.values():
            try:
                self._cursor.execute(f"CREATE TEMP VIEW {quote(name)} AS {text}")
            except duckdb.Error as e:
                found = sql_error(e)
                raise type(found)(f"{name!r}: {found}") from e
        return query
