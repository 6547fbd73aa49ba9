"""The commands of retirement over real files: what they print, and how they end."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import duckdb
import lakelet
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet.cli import app
from typer.testing import CliRunner, Result

ROWS = 100_000


def run(*arguments: str, cwd: Path, check: bool = True) -> Result:
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(app, list(arguments), env={"XDG_CACHE_HOME": str(cwd / "cache")})
    assert not check or done.exit_code == 0, done.output
    return done


def document(*arguments: str, cwd: Path) -> Any:
    return json.loads(run(*arguments, "--json", cwd=cwd).stdout)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A lake with orders and a part of it, both owned, and another part attached; audited from the folder exports."""
    rng = np.random.default_rng(2)
    orders = pa.table({"id": np.arange(ROWS), "price": rng.random(ROWS), "weight": rng.random(ROWS)})
    exports = tmp_path / "exports"
    exports.mkdir()
    pq.write_table(orders.slice(0, ROWS // 2), exports / "half.parquet")
    pq.write_table(orders, exports / "all.parquet")
    with lakelet.connect(tmp_path / "lake") as db:
        db.write("orders", orders)
        db.write("part", orders.filter(pa.array(rng.random(ROWS) < 0.5)))
        db.attach("half", exports / "half.parquet")
    return tmp_path


def test_plan_says_what_can_go_and_what_it_saves(place: Path) -> None:
    lines = run("plan", cwd=place).stdout.splitlines()
    assert lines[0].startswith("1 table of 3 can go: ")
    assert "USD a month (" in lines[1]
    assert "proven to be the cheapest plan" in lines[2]
    assert lines[4].split("  ")[0] == "table"
    assert lines[5].split()[:2] == ["part", "orders"]
    assert lines[-1] == "kept since nobody knows how often they are read: 1 table; see --unknown-reads"
    found = document("plan", "--unknown-reads", "0", "--prices", "gcs_standard", cwd=place)
    assert {row["table"] for row in found["actions"] if row["action"] == "retire"} == {"part", "half"}
    assert found["prices"]["name"] == "gcs_standard"
    assert 0 < found["saves_per_month"] < found["cost_per_month_before"]
    assert found["gap"] == 0
    run("plan", "--plot", "f.svg", cwd=place)
    assert (place / "f.svg").read_text().startswith("<svg")


def test_plan_takes_prices_reads_limits_and_tables_to_keep(place: Path) -> None:
    (place / "reads.csv").write_text("table,day,reads\npart,2026-03-01,9000000\n")
    assert document("plan", "--accesses", "reads.csv", cwd=place)["actions"][0]["table"] == "half"
    assert document("plan", "--keep", "part", cwd=place)["saves_per_month"] == 0
    assert document("plan", "--max-restore-seconds", "1e-9", cwd=place)["saves_per_month"] == 0
    assert document("plan", "--max-read-amplification", "0.5", cwd=place)["saves_per_month"] == 0
    (place / "mine.json").write_text(json.dumps({"name": "mine", "storage_per_gb_month": -1}))
    for arguments, words in (
        (("--prices", "mine.json"), "mine.json"),
        (("--prices", "nowhere"), "nowhere"),
        (("--max-restore-seconds", "0"), "max_restore_seconds"),
        (("--keep", "nobody"), "nobody"),
        (("--accesses", "nowhere.csv"), "nowhere.csv"),
    ):
        done = run("plan", *arguments, cwd=place, check=False)
        assert done.exit_code == 1
        assert words in done.stderr


def test_explain_says_why(place: Path) -> None:
    assert run("explain", "part", cwd=place).stdout.startswith("part: retire, and rebuild it from orders.\n")
    assert "How often it is read is unknown." in run("explain", "half", cwd=place).stdout
    done = run("explain", "nobody", cwd=place, check=False)
    assert (done.exit_code, "nobody" in done.stderr) == (1, True)


def test_retire_then_read_then_restore(place: Path) -> None:
    before = document("sql", "SELECT sum(price) AS s, count(*) AS n FROM part", cwd=place)
    dry = run("retire", "--dry-run", cwd=place).stdout
    assert dry.splitlines()[0].startswith("1 table of 3 can go")
    assert document("retire", "--dry-run", cwd=place)["saves_per_month"] > 0
    assert {row["name"]: row["kind"] for row in document("ls", cwd=place)}["part"] == "owned"
    lines = run("retire", cwd=place).stdout.splitlines()
    assert lines[0].startswith("1 table rebuilt from others from now on, at version 4: ")
    assert lines[3].split()[:2] == ["part", "orders"]
    assert {row["name"]: row["kind"] for row in document("ls", cwd=place)}["part"] == "retired"
    assert document("sql", "SELECT sum(price) AS s, count(*) AS n FROM part", cwd=place) == before
    again = document("retire", cwd=place)
    assert (again["retired"], again["version"], again["saved_bytes"]) == ([], 4, 0)
    assert document("describe", "part", cwd=place)["rebuilt_from"] == ["orders"]
    assert run("describe", "part", cwd=place).stdout.splitlines()[1] == "rebuilt from orders"
    assert document("describe", "part", "--version", "3", cwd=place)["rebuilt_from"] == []
    assert run("restore", "part", cwd=place).stdout.startswith("part has files of its own again, ")
    assert document("sql", "SELECT sum(price) AS s, count(*) AS n FROM part", cwd=place) == before
    done = run("restore", "nobody", cwd=place, check=False)
    assert (done.exit_code, "nobody" in done.stderr) == (1, True)


def test_approvals_and_pins_hold(place: Path) -> None:
    (place / "approvals.toml").write_text("")
    done = run("retire", "--approvals", "approvals.toml", cwd=place, check=False)
    assert (done.exit_code, "'part'" in done.stderr) == (1, True)
    run("pin", "part", "--owner", "Ann", "--reason", "audit", cwd=place)
    assert "It is pinned by Ann: audit." in run("explain", "part", cwd=place).stdout
    assert document("retire", cwd=place)["retired"] == []
    run("unpin", "part", cwd=place)
    (place / "approvals.toml").write_text('[part]\nowner = "Ann"\nreason = "a copy"\n')
    assert [one["table"] for one in document("retire", "--approvals", "approvals.toml", cwd=place)["retired"]] == [
        "part"
    ]
    assert run("pin", "part", "--kind", "forever", cwd=place, check=False).exit_code == 2


def test_files_of_an_attached_table_go_when_asked(place: Path) -> None:
    file = place / "exports" / "half.parquet"
    run("retire", "--unknown-reads", "0", cwd=place)
    assert run("retire", "--delete", "half", "--dry-run", cwd=place).stdout.startswith("would delete 1 file of half\n")
    assert file.exists()
    assert document("retire", "--delete", "half", cwd=place)["files"] == [str(file)]
    assert not file.exists()
    assert document("sql", "SELECT count(*) AS n FROM half", cwd=place) == [{"n": ROWS // 2}]


def test_export_view_writes_sql(place: Path) -> None:
    run("retire", cwd=place)
    assert run("export-view", "part", "views", cwd=place).stdout.startswith("written to ")
    with duckdb.connect() as con:
        con.execute((place / "views" / "part.sql").read_text())
        (found,) = con.execute("SELECT count(*) FROM part").fetchall()
    assert [{"n": found[0]}] == document("sql", "SELECT count(*) AS n FROM part", cwd=place)


def test_audit_speaks_in_money(place: Path) -> None:
    lines = run("audit", "exports", cwd=place).stdout.splitlines()
    assert any("could be saved by rebuilding 1 table from others, at 1 read of each a month" in line for line in lines)
    found = document("audit", "exports", "--reads-per-month", "0", "--prices", "s3_glacier_instant", cwd=place)
    assert found["plan"]["prices"]["name"] == "s3_glacier_instant"
    assert found["plan"]["saves_per_month"] > 0
    assert found["reads_per_month"] == 0
