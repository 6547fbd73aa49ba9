"""SQL over the lake: which names it finds, what it refuses, and that calls do not see each other."""

from __future__ import annotations

import gc
import threading

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet.lake.attached import Attachments
from lakelet.lake.errors import InvalidInput, InvalidSQL, NotFound, Unavailable
from lakelet.lake.local_store import LocalStore
from lakelet.lake.session import Session, sql_error
from lakelet.lake.snapshot import View


class Lake:
    """Names of attached files and views, as an engine would hold them."""

    def __init__(self, root):
        self.root = root
        self.session = Session(LocalStore(root / "lake"))
        self.attachments = Attachments()
        self.sources = {}
        self.asked = []

    def table(self, name, /, **columns):
        path = self.root / f"{len(self.sources)}.parquet"
        pq.write_table(pa.table(columns), path)
        self.sources[name] = str(path)
        return path

    def view(self, name, sql):
        self.sources[name] = View(name, sql)

    def resolve(self, name):
        self.asked.append(name)
        source = self.sources[name]
        return source if isinstance(source, View) else self.attachments.open(source)

    def sql(self, query, params=None):
        return self.session.sql(query, params, list(self.sources), self.resolve)

    def rows(self, query, params=None):
        return self.sql(query, params).fetchall()


@pytest.fixture
def lake(tmp_path):
    made = Lake(tmp_path)
    made.table("orders", id=[1, 2, 3], name=["x", None, "z"])
    yield made
    made.session.close()


# --- names -------------------------------------------------------------------------------------------------------


def test_only_what_a_query_names_is_opened(lake):
    lake.table("other", a=[1])
    assert lake.rows("SELECT count(*) FROM orders") == [(3,)]
    assert lake.rows("SELECT 1") == [(1,)]
    assert lake.asked == ["orders"]


@pytest.mark.parametrize(
    "query",
    [
        "FROM orders",
        "TABLE orders",
        "SELECT * FROM orders",
        'SELECT * FROM "orders" AS o',
        "(SELECT * FROM orders)",
        "SELECT * FROM (SELECT * FROM orders)",
        "WITH x AS (SELECT * FROM orders) SELECT * FROM x",
        "WITH orders AS (SELECT * FROM orders) SELECT * FROM orders",
        "WITH x AS (SELECT 1), y AS (FROM orders) FROM y",
        "SELECT * FROM orders WHERE EXISTS (SELECT 1 FROM orders)",
        "SELECT o.* FROM (VALUES (1)) v(i), LATERAL (SELECT * FROM orders WHERE i = 1) o",
        "SELECT * FROM orders UNION SELECT * FROM orders ORDER BY id",
        "SELECT * FROM query_table('orders')",
        "SELECT * FROM orders -- comment",
        "SELECT * FROM orders /* ; */ ;",
        "SELECT orders.* FROM orders SEMI JOIN orders o USING (id)",
        "SELECT * FROM ORDERS",
    ],
)
def test_names_are_found_wherever_they_stand(lake, query):
    if "query_table" in query:
        with pytest.raises(InvalidSQL, match="orders"):  # a name inside a string is not looked for
            lake.rows(query)
    else:
        assert sorted(lake.rows(query)) == [(1, "x"), (2, None), (3, "z")]


def test_a_cte_hides_a_table_and_is_gone_outside(lake):
    lake.table("x", a=[7])
    assert lake.rows("WITH x AS (SELECT 1 AS a) SELECT * FROM x") == [(1,)]
    assert lake.asked == []
    assert lake.rows("SELECT (WITH x AS (SELECT 1 AS a) SELECT a FROM x), a FROM x") == [(1, 7)]
    recursive = "WITH RECURSIVE x AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM x WHERE a < 3) SELECT max(a) FROM x"
    lake.asked.clear()
    assert lake.rows(recursive) == [(3,)]
    assert lake.asked == []


def test_hostile_names(lake):
    for i, name in enumerate(['a"b', "a'b", "a b; DROP TABLE x; --", "é☃", "SELECT", "pg_class", "a.b", "%s", "$1"]):
        lake.table(name, n=[i])
        quoted = '"' + name.replace('"', '""') + '"'
        assert lake.rows(f"SELECT * FROM {quoted}") == [(i,)]
        assert len(lake.rows(f"EXPLAIN SELECT * FROM {quoted}")) == 1


def test_the_lakes_names_come_before_duckdbs(lake):
    lake.table("duckdb_tables", a=[1])
    assert lake.rows("SELECT * FROM duckdb_tables") == [(1,)]


def test_case(lake):
    lake.table("Mixed", a=[1])
    assert lake.rows("SELECT * FROM mixed") == [(1,)]
    lake.table("MIXED", a=[2])
    assert lake.rows('SELECT * FROM "Mixed"') == [(1,)]
    assert lake.rows("SELECT * FROM MIXED") == [(2,)]
    with pytest.raises(InvalidSQL, match=r"'MIXED' or 'Mixed'"):
        lake.rows("SELECT * FROM mixed")
    with pytest.raises(InvalidSQL, match="case only"):
        lake.rows('SELECT * FROM "Mixed", "MIXED"')


def test_names_that_are_nowhere(lake):
    for query in ("SELECT * FROM nowhere", "SELECT * FROM s.orders", "SELECT nothing FROM orders", "SELECT f(1)"):
        with pytest.raises(InvalidSQL):
            lake.rows(query)


def test_python_variables_are_no_tables(lake):
    df = pa.table({"a": [1]})
    assert df.num_rows
    with pytest.raises(InvalidSQL, match="df"):
        lake.rows("SELECT * FROM df")


def test_files_may_be_read_by_name_and_function(lake):
    path = lake.sources["orders"]
    assert lake.rows(f"SELECT count(*) FROM '{path}'") == [(3,)]
    assert lake.rows(f"SELECT count(*) FROM read_parquet('{path}')") == [(3,)]
    with pytest.raises(NotFound, match="No files found"):
        lake.rows("SELECT * FROM read_parquet('/nowhere/*.parquet')")


# --- views -------------------------------------------------------------------------------------------------------


def test_views_of_views(lake):
    lake.view("v", "SELECT id * 10 AS ten FROM orders")
    lake.view("w", "WITH v2 AS (SELECT * FROM V) SELECT max(ten) AS m FROM v2; -- the largest")
    assert lake.rows("SELECT * FROM w, v WHERE ten = m") == [(30, 30)]


def test_a_views_cte_does_not_hide_the_callers_table(lake):
    lake.view("v", "WITH orders AS (SELECT 5 AS five) SELECT * FROM orders")
    assert lake.rows("SELECT five, count(*) FROM v, orders GROUP BY five") == [(5, 3)]
    assert lake.rows("WITH orders AS (SELECT 1 AS one) SELECT * FROM v, orders") == [(5, 1)]


def test_views_in_a_circle(lake):
    lake.view("a", "SELECT * FROM b")
    lake.view("b", "SELECT * FROM c")
    lake.view("c", "SELECT * FROM A")
    with pytest.raises(InvalidSQL, match="a -> b -> c -> a"):
        lake.rows("SELECT * FROM a")


def test_what_may_be_a_view(lake):
    assert lake.session.check_view("SELECT * FROM orders JOIN x USING (id)") == ("orders", "x")
    for text in ("SELECT 1; SELECT 2", "", "DROP TABLE x", "SELECT $a", "SELECT ?", "SHOW TABLES", "EXPLAIN SELECT 1"):
        with pytest.raises(InvalidSQL):
            lake.session.check_view(text)


def test_a_view_that_no_longer_binds_says_which(lake):
    lake.view("v", "SELECT gone FROM orders")
    with pytest.raises(InvalidSQL, match=r"'v'.*gone"):
        lake.rows("SELECT 1 FROM v")


# --- statements --------------------------------------------------------------------------------------------------


def test_reads_of_every_kind(lake, tmp_path):
    assert lake.rows("DESCRIBE orders")[0][:2] == ("id", "BIGINT")
    assert lake.rows("SUMMARIZE orders")[0][0] == "id"
    assert lake.rows("SHOW TABLES") == [("orders",)]
    assert "READ_PARQUET" in lake.rows("EXPLAIN SELECT * FROM orders")[0][1]
    assert lake.rows("PIVOT orders ON name IN ('x', 'z') USING sum(id)") == [(1, 3)]
    out = tmp_path / "out.csv"
    lake.rows(f"COPY (SELECT id FROM \"orders\") TO '{out}' (FORMAT csv)")
    assert out.read_text() == "id\n1\n2\n3\n"


def test_pivot_over_unknown_values(lake):
    found = lake.sql("PIVOT (SELECT id, id % 2 AS odd FROM Orders) ON odd USING count(*)")
    assert found.columns == ["id", "0", "1"]
    assert len(found.fetchall()) == 3


@pytest.mark.parametrize(
    ("query", "mend"),
    [
        ("INSERT INTO orders VALUES (1)", "db.write"),
        ("UPDATE orders SET id = 1", "db.merge"),
        ("DELETE FROM orders", "db.delete"),
        ("WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x", "db.delete"),
        ("MERGE INTO orders USING orders o ON true WHEN MATCHED THEN DELETE", "db.merge"),
        ("DROP TABLE orders", "db.drop"),
        ("CREATE TABLE x AS SELECT 1", "db.write"),
        ("CREATE TEMP TABLE x AS SELECT 1", "WITH"),
        ("CREATE VIEW x AS SELECT 1", "db.create_view"),
        ("ALTER TABLE orders ADD COLUMN x INT", "db.rename"),
        ("COPY orders FROM 'x.csv'", "db.write"),
        ("ATTACH 'x.db'", "SELECT"),
        ("SET threads = 1", "SELECT"),
        ("PRAGMA version", "SELECT"),
        ("CALL pragma_version()", "SELECT"),
        ("BEGIN", "SELECT"),
        ("LOAD icu", "SELECT"),
        ("EXPORT DATABASE 'x'", "SELECT"),
        ("SELECT 1; SELECT 2", "a call for each"),
        ("SELECT 1; DROP TABLE orders", "a call for each"),
        ("", "a call for each"),
        ("-- nothing", "a call for each"),
        ("selec 1", "syntax error"),
        ("SELECT 'a", "unterminated"),
    ],
)
def test_what_is_refused_says_what_to_do(lake, query, mend):
    with pytest.raises(InvalidSQL, match=f"(?i){mend}"):
        lake.rows(query)
    assert lake.rows("SELECT count(*) FROM orders") == [(3,)]


def test_text_that_is_no_query(lake):
    with pytest.raises(InvalidSQL, match="text"):
        lake.rows(7)
    with pytest.raises(InvalidSQL, match="WHERE_BYTES"):
        lake.rows("SELECT 1 -- " + "x" * 1_000_001)
    with pytest.raises(InvalidSQL, match="Unicode"):
        lake.rows("SELECT '\udc80'")


def test_parameters(lake):
    assert lake.rows("SELECT id FROM orders WHERE name = $n", {"n": "z"}) == [(3,)]
    assert lake.rows("SELECT id FROM orders WHERE id > ? AND id < ?", [1, 3]) == [(2,)]
    hostile = "x' OR 1=1; --"
    assert lake.rows("SELECT $h", {"h": hostile}) == [(hostile,)]
    for query, params in (("SELECT $n", {}), ("SELECT $n", {"m": 1}), ("SELECT ?", [1, 2]), ("SELECT $a, ?", [1])):
        with pytest.raises(InvalidSQL):
            lake.rows(query, params)
    with pytest.raises(InvalidSQL):
        lake.rows("SELECT $o", {"o": object()})


def test_first_lines_of_duckdbs_errors_and_what_they_mean():
    assert type(sql_error(duckdb.BinderException("Binder Error: x\n\nLINE 1"))) is InvalidSQL
    assert str(sql_error(duckdb.BinderException("Binder Error: x\n\nLINE 1"))).startswith("Binder Error: x.")
    assert type(sql_error(duckdb.IOException("IO Error: disk"))) is Unavailable
    assert type(sql_error(duckdb.OutOfMemoryException("Out of Memory"))) is Unavailable


def test_a_table_that_cannot_be_opened(lake):
    lake.sources["gone"] = "/nowhere/gone.parquet"
    with pytest.raises(NotFound, match="gone"):
        lake.rows("SELECT * FROM gone")
    with pytest.raises(NotFound, match="gone"):
        lake.rows("EXPLAIN SELECT * FROM gone")
    assert lake.rows("SELECT 1 AS gone FROM orders LIMIT 1") == [(1,)]
    assert len(lake.rows("EXPLAIN SELECT id AS gone FROM orders")) == 1  # a word that happens to be a name


# --- calls do not see each other ---------------------------------------------------------------------------------


def test_a_relation_outlives_its_call_and_the_session(lake):
    relation = lake.sql("SELECT id FROM orders WHERE id > $x", {"x": 1})
    lake.session.close()
    gc.collect()
    assert relation.filter("id < 3").fetchall() == [(2,)]
    with pytest.raises(InvalidInput, match="closed"):
        lake.sql("SELECT 1")


def test_a_relation_keeps_the_table_it_was_made_from(lake, tmp_path):
    relation = lake.sql("SELECT * FROM orders")
    lake.table("orders", other=[9])
    assert lake.rows("SELECT * FROM orders") == [(9,)]
    assert relation.columns == ["id", "name"]
    assert len(relation.fetchall()) == 3


def test_many_threads(lake):
    lake.view("v", "SELECT sum(id) AS s FROM orders")
    failures = []

    def work(number):
        try:
            for i in range(20):
                assert lake.rows("SELECT s + $n FROM v", {"n": number * i}) == [(6 + number * i,)]
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_rows_keep_the_order_of_the_file(tmp_path):
    lake = Lake(tmp_path)
    ids = [(i * 7919) % 300_000 for i in range(300_000)]
    pq.write_table(pa.table({"id": ids}), tmp_path / "big.parquet", row_group_size=10_000)
    lake.sources["big"] = str(tmp_path / "big.parquet")
    assert lake.sql("SELECT id FROM big").to_arrow_table()["id"].to_pylist() == ids


def test_paths_with_glob_characters_and_quotes(tmp_path):
    lake = Lake(tmp_path)
    for i, name in enumerate(["[ab].parquet", "a.parquet", "*.parquet", "x?'.parquet", "k=1.parquet", "**.parquet"]):
        pq.write_table(pa.table({"n": [i]}), tmp_path / name)
        lake.sources["t"] = str(tmp_path / name)
        assert lake.rows("SELECT * FROM t") == [(i,)]
    (tmp_path / "y=1").mkdir()
    pq.write_table(pa.table({"n": [9]}), tmp_path / "y=1/f.parquet")
    lake.sources["t"] = str(tmp_path / "y=1/f.parquet")
    assert lake.sql("SELECT * FROM t").columns == ["n"]
    pq.write_table(pa.table({"n": [9]}), tmp_path / "b\\*.parquet")
    lake.sources["t"] = str(tmp_path / "b\\*.parquet")
    with pytest.raises(InvalidInput, match="backslash"):
        lake.rows("SELECT * FROM t")


def test_tables_in_an_object_store(tmp_path):
    filesystem = fsspec.filesystem("memory")
    for name in ("[x].parquet", "x.parquet"):
        with filesystem.open(f"/session/{name}", "wb") as file:
            pq.write_table(pa.table({"n": [name]}), file)
    lake = Lake(tmp_path)
    lake.sources["t"] = "memory://session/[x].parquet"
    lake.sources["d"] = "memory://session"
    assert lake.rows("SELECT * FROM t") == [("[x].parquet",)]
    assert lake.rows("SELECT count(*) FROM d, t") == [(2,)]
