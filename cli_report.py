"""Containment graphs and audits as the command line shows them: for people, and as JSON documents."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .cli_output import byte_text, counted, print_lines, print_table

if TYPE_CHECKING:
    from .cli_audit import Audit
    from .containment.graph import Graph

__all__ = ["audit_document", "graph_document", "print_audit", "print_graph"]

_STATUSES = {"redundant": "redundant for sure", "open": "still open", "ruled out": "ruled out"}
"""What is known of a table, in the words of ``Graph.findings`` and in words for people."""


def graph_document(graph: Graph) -> dict[str, Any]:
    """The whole relation as JSON values. Raises LimitExceeded when it has too many edges."""
    return {
        "tables": len(graph.names),
        "bytes": _bytes(graph),
        "edges": graph.edges.to_pylist(),
        "reduced": graph.reduced.to_pylist(),
        "groups": graph.groups.to_pylist(),
        "stages": graph.stages.to_pylist(),
        "open": sorted(graph.names[table] for table in graph.undecided),
        "empty": list(graph.empty),
    }


def audit_document(audit: Audit) -> dict[str, Any]:
    """An audit as JSON values: what is redundant once each, with the table that holds its rows."""
    graph = audit.graph
    return {
        "path": audit.path,
        "tables": len(graph.names),
        "bytes": _bytes(graph),
        "redundant": _redundancies(graph),
        "partial": [row for row in graph.reduced.to_pylist() if row["kind"] == "partial"],
        "open": sorted(graph.names[table] for table in graph.undecided),
        "empty": list(graph.empty),
        "stages": graph.stages.to_pylist(),
        "rejected": [{"location": location, "reason": reason} for location, reason in audit.rejected],
    }


def print_graph(graph: Graph, rows: int) -> None:
    """The summary, the reduced edges with the largest children first, and the funnel."""
    print_lines(_summary(graph), "")
    size = dict(zip(graph.names, graph.num_bytes, strict=True))
    edges = sorted(graph.reduced.to_pylist(), key=lambda e: (-size[e["child"]], e["child"], e["parent"]))
    print_table(
        ["table", "in", "kind", "share", "distinct rows", "size"],
        [
            [
                e["child"],
                e["parent"],
                e["kind"],
                _share(e["fraction"]),
                f"{e['child_rows']:,}",
                byte_text(size[e["child"]]),
            ]
            for e in edges[:rows]
        ],
        right=["share", "distinct rows", "size"],
    )
    _print_more(len(edges) - rows)
    print_lines("")
    _print_stages(graph)


def print_audit(audit: Audit, rows: int) -> None:
    """The bytes by what is known of them, the largest redundancies, and the funnel."""
    graph = audit.graph
    size = _bytes(graph)
    print_lines(f"{counted(len(graph.names), 'table')}, {byte_text(size['total'])} below {audit.path}", "")
    tables = Counter(graph.findings.column("status").to_pylist())
    print_table(
        ["", "size", "share", "tables"],
        [
            [words, byte_text(size[key]), _percent(size[key], size["total"]), tables[key]]
            for key, words in _STATUSES.items()
        ],
        right=["size", "share", "tables"],
    )
    found = _redundancies(graph)
    if found:
        print_lines("")
        print_table(
            ["redundant table", "size", "all its rows are in", "kind"],
            [[row["table"], byte_text(row["bytes"]), row["in"], row["kind"]] for row in found[:rows]],
            right=["size"],
        )
        _print_more(len(found) - rows)
    partial = [row for row in graph.reduced.to_pylist() if row["kind"] == "partial"]
    if partial:
        print_lines("")
        print_table(
            ["table", "share of its rows", "in"],
            [[row["child"], _share(row["fraction"]), row["parent"]] for row in partial[:rows]],
            right=["share of its rows"],
        )
        _print_more(len(partial) - rows)
    print_lines("")
    _print_stages(graph)
    if graph.undecided:
        print_lines("", "run it again to go on with what is still open")


def _redundancies(graph: Graph) -> list[dict[str, Any]]:
    """Redundant tables, the largest first, each with a table that has all its rows."""
    return [
        {"table": row["table"], "bytes": row["num_bytes"], "in": row["parent"], "kind": row["kind"]}
        for row in graph.findings.to_pylist()
        if row["status"] == "redundant"
    ]


def _bytes(graph: Graph) -> dict[str, int]:
    """Bytes of all tables, and by what is known of them."""
    sizes = dict.fromkeys(("total", *_STATUSES), 0)
    for row in graph.findings.to_pylist():
        sizes[row["status"]] += row["num_bytes"]
        sizes["total"] += row["num_bytes"]
    return sizes


def _summary(graph: Graph) -> str:
    sizes = _bytes(graph)
    text = (
        f"{counted(len(graph.names), 'table')}, {byte_text(sizes['total'])}; redundant: "
        f"{counted(len(graph.redundant), 'table')}, {byte_text(sizes['redundant'])}"
    )
    return f"{text}; still open: {byte_text(sizes['open'])}" if graph.undecided else text


def _print_stages(graph: Graph) -> None:
    if not graph.stages.num_rows:
        print_lines("nothing changed since the last run")
        return
    print_table(
        ["stage", "pairs in", "pairs out", "read", "seconds"],
        [
            [s["stage"], f"{s['pairs_in']:,}", f"{s['pairs_out']:,}", byte_text(s["bytes_read"]), f"{s['seconds']:.2f}"]
            for s in graph.stages.to_pylist()
        ],
        right=["pairs in", "pairs out", "read", "seconds"],
    )


def _print_more(number: int) -> None:
    if number > 0:
        print_lines(f"and {number:,} more: --rows or --json prints them")


def _percent(part: int, whole: int) -> str:
    return _share(part / whole if whole else 0.0)


def _share(fraction: float) -> str:
    """A fraction in percent; only the whole is shown as 100 %."""
    percent = f"{fraction:.1%}"
    return "<100%" if percent == "100.0%" and fraction < 1.0 else "100%" if fraction == 1.0 else percent
