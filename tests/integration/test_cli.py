"""The command line over real files: what it prints, and how it ends."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lakelet
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet import cli_audit
from lakelet.cli import app
from typer.testing import CliRunner, Result

Files = dict[str, tuple[int, int]]


def run(*arguments: str, cwd: Path, check: bool = True, **environment: str) -> Result:
    """``lakelet ARGUMENTS`` in ``cwd``, in this process; with ``check`` it must exit with 0."""
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(app, list(arguments), env={"XDG_CACHE_HOME": str(cwd / "cache"), **environment})
    assert not check or done.exit_code == 0, done.output
    return done


def document(*arguments: str, cwd: Path) -> Any:
    """What a command prints with --json."""
    return json.loads(run(*arguments, "--json", cwd=cwd).stdout)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with exports: orders, a part and a reversed copy of it, customers, and a file that is no Parquet."""
    exports = tmp_path / "exports"
    exports.mkdir()
    orders = pa.table(
        {"id": range(1000), "day": [i // 10 for i in range(1000)], "total": [i * 1.5 for i in range(1000)]}
    )
    pq.write_table(orders, exports / "orders.parquet")
    pq.write_table(orders.slice(100, 300).select(["day", "id"]), exports / "orders_old.parquet")
    pq.write_table(orders.take(list(reversed(range(1000)))), exports / "orders_copy.parquet")
    pq.write_table(pa.table({"id": [1, 2], "name": ["Ann", "[red]Bob[/]"]}), exports / "customers.parquet")
    (exports / "broken.parquet").write_bytes(b"PAR1 this is no footer PAR1")
    return tmp_path


def stamps(folder: Path) -> Files:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}


# --- audit -------------------------------------------------------------------------------------------------------


def test_audit_tells_redundant_from_ruled_out_and_changes_nothing(place: Path) -> None:
    before = stamps(place / "exports")
    found = document("audit", "exports", cwd=place)
    assert stamps(place / "exports") == before
    assert {(r["table"], r["in"], r["kind"]) for r in found["redundant"]} in (
        {("orders_old", "orders", "contained"), ("orders_copy", "orders", "duplicate")},
        {("orders_old", "orders_copy", "contained"), ("orders", "orders_copy", "duplicate")},
    )
    sizes = {p.stem: p.stat().st_size for p in (place / "exports").glob("*.parquet")}
    assert found["tables"] == 4
    assert found["bytes"]["total"] == sum(size for name, size in sizes.items() if name != "broken")
    assert found["bytes"]["redundant"] == sum(sizes[r["table"]] for r in found["redundant"])
    assert found["bytes"]["open"] == 0
    assert found["bytes"]["ruled out"] == found["bytes"]["total"] - found["bytes"]["redundant"]
    assert [Path(r["location"]).name for r in found["rejected"]] == ["broken.parquet"]


def test_audit_for_people_names_the_redundant_tables_and_the_rejected_file(place: Path) -> None:
    out = run("audit", "exports", cwd=place).stdout
    for words in ("redundant for sure", "still open", "ruled out", "orders_old", "broken.parquet", "min-max"):
        assert words in out


def test_audit_goes_on_where_a_budget_stopped_it(place: Path) -> None:
    first = document("audit", "exports", "--budget-bytes", "0", cwd=place)
    assert first["bytes"]["redundant"] == 0
    assert first["bytes"]["open"] > 0
    assert {"orders", "orders_old", "orders_copy"} == set(first["open"])
    assert "run it again" in run("audit", "exports", "--budget-bytes", "0", cwd=place).stdout
    last = document("audit", "exports", "--budget-bytes", "1GB", cwd=place)
    assert last["open"] == []
    assert len(last["redundant"]) == 2
    again = document("audit", "exports", "--budget-bytes", "0", cwd=place)
    assert again["redundant"] == last["redundant"]
    assert sum(stage["bytes_read"] for stage in again["stages"]) == 0


def test_audit_sees_what_changed_since(place: Path) -> None:
    document("audit", "exports", cwd=place)
    pq.write_table(pa.table({"day": [5], "id": [-1]}), place / "exports" / "orders_old.parquet")
    found = document("audit", "exports", cwd=place)
    assert [r["table"] for r in found["redundant"]] in (["orders_copy"], ["orders"])


def test_audit_reports_partial_containment(place: Path) -> None:
    pq.write_table(pa.table({"day": [0, 0, 0, 7], "id": [1, 2, 3, -1]}), place / "exports" / "near.parquet")
    found = document("audit", "exports", "--min-fraction", "0.7", cwd=place)
    assert ("near", 0.75) in {(r["child"], r["fraction"]) for r in found["partial"]}
    out = run("audit", "exports", "--min-fraction", "0.7", cwd=place).stdout
    assert "75.0%" in out


def test_audit_refuses_to_keep_its_state_inside_what_it_audits(place: Path) -> None:
    before = stamps(place / "exports")
    done = run("audit", "exports", "--state", "exports/state", cwd=place, check=False)
    assert done.exit_code == 1
    assert "--state" in done.stderr
    assert stamps(place / "exports") == before


def test_audit_of_an_empty_folder_is_an_answer_and_of_none_an_error(place: Path) -> None:
    (place / "empty").mkdir()
    assert document("audit", "empty", cwd=place)["tables"] == 0
    assert "0 tables" in run("audit", "empty", cwd=place).stdout
    assert run("audit", "nowhere", cwd=place, check=False).exit_code == 1


def test_a_damaged_state_folder_is_named(place: Path) -> None:
    run("audit", "exports", "--state", "state", cwd=place)
    (place / "state" / "seed").write_bytes(b"short")
    done = run("audit", "exports", "--state", "state", cwd=place, check=False)
    assert done.exit_code == 1
    assert "remove the folder" in done.stderr


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("0", 0), ("10GB", 10**10), ("1.5 kB", 1500), ("2KiB", 2048), ("1T", 10**12), ("7b", 7), ("1tib", 2**40)],
)
def test_sizes_are_read(text: str, num_bytes: int) -> None:
    assert cli_audit.byte_count(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "10 XB", "1 G B", "1iB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(lakelet.InvalidInput, match="10GB"):
        cli_audit.byte_count(text)


# --- a lake ------------------------------------------------------------------------------------------------------


def test_attach_list_describe_and_query(place: Path) -> None:
    attached = document("attach", "exports", cwd=place)
    assert attached["attached"] == ["customers", "orders", "orders_copy", "orders_old"]
    assert [Path(r["location"]).name for r in attached["rejected"]] == ["broken.parquet"]
    assert [(t["name"], t["kind"]) for t in document("ls", cwd=place)] == [
        (name, "attached") for name in attached["attached"]
    ]
    assert {t["name"]: t["rows"] for t in document("ls", cwd=place)}["orders"] == 1000
    told = document("describe", "orders", cwd=place)
    assert (told["rows"], [c["name"] for c in told["columns"]]) == (1000, ["id", "day", "total"])
    rows = document(
        "sql", "SELECT id, total FROM orders WHERE day = $day ORDER BY id LIMIT 2", "-p", "day=7", cwd=place
    )
    assert rows == [{"id": 70, "total": 105.0}, {"id": 71, "total": 106.5}]


def test_ls_lists_what_cannot_be_read_any_more(place: Path) -> None:
    run("attach", "exports", cwd=place)
    (place / "exports" / "orders.parquet").unlink()
    listed = {t["name"]: t for t in document("ls", cwd=place)}
    assert (listed["orders"]["rows"], listed["orders"]["bytes"]) == (None, None)
    assert "orders.parquet" in listed["orders"]["error"]
    assert listed["customers"]["rows"] == 2
    assert listed["customers"]["bytes"] == (place / "exports" / "customers.parquet").stat().st_size
    shown = run("ls", cwd=place).stdout
    assert "1 table cannot be read" in shown
    assert "customers" in shown


def test_the_lake_comes_from_the_option_or_the_environment(place: Path) -> None:
    run("attach", "exports/orders.parquet", "--name", "o", "--lake", "one", cwd=place)
    run("attach", "exports/customers.parquet", "--name", "c", cwd=place, LAKELET_LAKE="two")
    assert [t["name"] for t in document("ls", "-l", "one", cwd=place)] == ["o"]
    assert "c" in run("ls", cwd=place, LAKELET_LAKE="two").stdout
    assert not (place / "lake").exists()


def test_sql_prints_tables_csv_and_json(place: Path) -> None:
    run("attach", "exports", cwd=place)
    query = "SELECT * FROM customers ORDER BY id"
    assert "[red]Bob[/]" in run("sql", query, cwd=place).stdout
    read = list(csv.reader(io.StringIO(run("sql", query, "--csv", cwd=place).stdout)))
    assert read == [["id", "name"], ["1", "Ann"], ["2", "[red]Bob[/]"]]
    few = run("sql", "SELECT id FROM orders", "--rows", "3", cwd=place)
    assert len(few.stdout.splitlines()) == 4
    assert "first 3 rows" in few.stderr
    assert document("sql", "SELECT id FROM orders WHERE id < 0", cwd=place) == []
    assert len(document("sql", "SELECT id FROM orders", cwd=place)) == 1000


def test_values_never_become_sql(place: Path) -> None:
    run("attach", "exports", cwd=place)
    rows = document("sql", "SELECT $x AS x", "-p", "x='; DROP TABLE orders; --", cwd=place)
    assert rows == [{"x": "'; DROP TABLE orders; --"}]
    values = ["-p", "a=1.5", "-p", "b=null", "-p", 'c="7"']
    rows = document("sql", "SELECT $a AS a, $b AS b, $c AS c", *values, cwd=place)
    assert rows == [{"a": 1.5, "b": None, "c": "7"}]


def test_history_tells_versions_and_can_be_narrowed(place: Path) -> None:
    with lakelet.connect(place / "lake") as db:
        db.write("a", pa.table({"x": [1]}))
        db.write("b", pa.table({"x": [1]}))
        db.write("a", pa.table({"x": [2]}), mode="append")
    assert [c["version"] for c in document("history", cwd=place)] == [3, 2, 1]
    assert [c["version"] for c in document("history", "a", cwd=place)] == [3, 1]
    assert document("describe", "a", "--version", "1", cwd=place)["rows"] == 1
    assert document("describe", "a", cwd=place)["rows"] == 2


def test_containment_prints_draws_and_is_the_same_as_in_python(place: Path) -> None:
    run("attach", "exports", cwd=place)
    found = document("containment", "--plot", "graph.svg", cwd=place)
    assert (place / "graph.svg").read_text(encoding="utf-8").lstrip().startswith("<")
    with lakelet.connect(place / "lake") as db:
        assert found["edges"] == db.containment().edges.to_pylist()
    assert {(e["child"], e["parent"]) for e in found["edges"]} == {
        ("orders", "orders_copy"),
        ("orders_copy", "orders"),
        ("orders_old", "orders"),
        ("orders_old", "orders_copy"),
    }
    out = run("containment", "orders", "orders_old", cwd=place).stdout
    assert "orders_old" in out
    assert "orders_copy" not in out


# --- when things go wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ls", "--lake", "nothing"), "no lake"),
        (("containment", "--lake", "nothing"), "no lake"),
        (("describe", "nope"), "nope"),
        (("describe", "orders", "--version", "99"), "99"),
        (("sql", "SELECT * FROM nope"), "nope"),
        (("sql", "SELEC 1"), "SELEC"),
        (("sql", "SELECT CAST(name AS INT) FROM customers"), "Ann"),
        (("sql", "DROP TABLE orders"), "DROP"),
        (("sql", "SELECT nope FROM orders"), "nope"),
        (("attach", "nowhere"), "nowhere"),
        (("attach", "exports/broken.parquet", "--name", "b"), "broken"),
        (("attach", "exports/orders.parquet", "--name", "orders"), "orders"),
        (("containment", "nope"), "nope"),
        (("containment", "--min-fraction", "2"), "min_fraction"),
        (("audit", "exports", "--budget-bytes", "much"), "much"),
    ],
)
def test_a_refusal_is_said_on_standard_error_and_exits_with_1(
    place: Path, arguments: tuple[str, ...], words: str
) -> None:
    run("attach", "exports", cwd=place)
    done = run(*arguments, cwd=place, check=False)
    assert (done.exit_code, done.stdout) == (1, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "nothing").exists()


@pytest.mark.parametrize("arguments", [("nope",), ("ls", "--nope"), ("sql",), ("sql", "SELECT 1", "-p", "x")])
def test_wrong_usage_exits_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run(*arguments, cwd=tmp_path, check=False).exit_code == 2


def test_version_and_help(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout.strip() == f"lakelet {lakelet.__version__}"
    assert "audit" in run("--help", cwd=tmp_path).stdout
    command = [sys.executable, "-m", "lakelet", "--version"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip() == (
        f"lakelet {lakelet.__version__}"
    )


def test_a_closed_pipe_is_no_error(place: Path) -> None:
    run("attach", "exports", cwd=place)
    query = "SELECT range AS i FROM range(1000000)"
    command = [sys.executable, "-m", "lakelet", "sql", query, "--csv"]
    with subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "i\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_an_interrupt_ends_quietly_with_130(place: Path) -> None:
    run("attach", "exports", cwd=place)
    query = "SELECT sum(sin(a.range) * cos(b.range)) FROM range(10000000) a, range(10000000) b"
    command = [sys.executable, "-m", "lakelet", "sql", "-"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=place, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(query + " " * 500_000)  # more than a pipe holds: returns once the command reads it
        process.stdin.close()
        # Python may lose an interrupt that comes in the middle of an import; a person presses again.
        for _ in range(20):
            time.sleep(1.0)
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGINT)
        process.kill()
        errors = process.stderr.read()
    # ended by the signal itself, a shell sees 130 too
    assert process.returncode in {130, -signal.SIGINT}, errors
    assert "Traceback" not in errors
