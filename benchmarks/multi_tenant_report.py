"""The tables, the targets and the picture of what ``multi_tenant.py`` measured."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from machine import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from multi_tenant_work import System

BUCKETS = ((1, 100), (100, 1_000), (1_000, 5_000), (5_000, 20_000), (20_000, 1 << 60))
"""Sizes of tenants: rows from, below."""
RECALL = 0.95
"""Systems are compared at the first setting that finds so much."""
POINT = {"recall": "recall", "mean": "mean µs", "p50": "p50", "p99": "p99", "met_p99": "p99 as met"}
"""What is shown of a point, and the names of the columns."""
Found = dict[str, Any]


def reaching(points: Iterable[Found], recall: float) -> Found | None:
    """The first of the points that finds so much."""
    return next((point for point in points if point["recall"] >= recall), None)


def of(result: Found, system: str) -> list[Found]:
    """The points of a system, by its settings."""
    return [point for point in result["points"] if point["system"] == system]


def default(result: Found) -> Found:
    """Lakelet as it is without settings."""
    return of(result, "lakelet")[0]


def targets(result: Found) -> list[tuple[str, str, str, str]]:
    """What was asked for, the figure, the target, whether it is met ("" where there is nothing to compare with)."""
    ours, rows = default(result), []

    def line(what: str, figure: float | None, least: float | None, most: float | None, unit: str = "") -> None:
        target = f">= {least:g}{unit}" if least is not None else f"<= {most:g}{unit}"
        met = figure is not None and (figure >= least if least is not None else most is not None and figure <= most)
        shown = "not measured" if figure is None else f"{figure:.3g}{unit}" if figure < 1000 else f"{figure:,.0f}{unit}"
        rows.append((what, shown, target, "" if figure is None else "yes" if met else "**no**"))

    each, flat = reaching(of(result, "hnswlib"), RECALL), reaching(of(result, "flat"), RECALL)
    natives = [reaching(of(result, name), RECALL) for name, fact in result["facts"].items() if fact["native"]]
    natives_mean = [point["mean"] for point in natives if point]
    line("mean recall at the default", ours["recall"], RECALL, None)
    line("1st percentile over tenants of their recall", result["tenants"]["p1_recall"], 0.9, None)
    line("mean over that of hnswlib a tenant", each and ours["mean"] / each["mean"], None, 1.3, "x")
    small = [b for b in result["buckets"] if b["high"] <= 1_000 and "hnswlib" in b]
    over = max((b["lakelet"] - b["hnswlib"] for b in small), default=None)
    line("mean less that of hnswlib a tenant, tenants below 1,000 rows", over, None, 10, " µs")
    line("p99 over mean", ours["p99"] / ours["mean"], None, 3, "x")
    line(
        "the best shared index with a selector over ours",
        min(natives_mean, default=0) / ours["mean"] or None,
        5,
        None,
        "x",
    )
    sized = [b for b in result["buckets"] if "flat" in b]
    slowest = min((b["flat"] / b["lakelet"] for b in sized), default=None)
    line("flat scan over ours, the worst size of tenants", slowest, 1, None, "x")
    large = next((b["flat"] / b["lakelet"] for b in sized if b["low"] >= 20_000), None)
    line("flat scan over ours, tenants above 20,000 rows", large, 3, None, "x")
    line("flat scan over ours, all queries", flat and flat["mean"] / ours["mean"], 1, None, "x")
    if result["sharing"] >= 12:
        line("bytes a vector beyond the raw ones", beyond(result, "lakelet"), None, 150)
        whole = result["facts"].get("hnswlib")
        line("bytes of hnswlib a tenant over ours", whole and whole["bytes"] / result["memory"], 5, None, "x")
    return rows


def beyond(result: Found, system: str) -> float:
    """Bytes a vector beyond one copy of the raw vectors."""
    return (result["facts"][system]["bytes"] - result["raw"]) / result["rows"]


def all_met(found: dict[str, Found]) -> bool:
    return all(met != "**no**" for result in found.values() for *_, met in targets(result))


def sections(found: dict[str, Found], missing: list[str], picture: str) -> list[str]:
    """The text of the results file."""
    parts = [
        "Microseconds a query, one call each; a query's latency is its median over the rounds, and mean, p50 and p99 "
        "are of these; p99 as met is that within a round, with what else ran on the machine. Bytes are those of the "
        "arrays (lakelet, flat scan) or of the files (the others), less than they take in memory; resident is what the "
        "process grew by, for lakelet with its compiled code, for hnswlib with 2.6 MB of locks an index. "
        f"Recall is at 10; systems are compared at their first setting that finds {RECALL}, lakelet at its default."
    ]
    if missing:
        parts.append("Left out: " + "; ".join(missing) + ".")
    if picture:
        parts.append(f"![recall and queries a second; latency by size]({picture})")
    for key, result in found.items():
        least, median, most = result["sizes"]
        parts.append(f"## {key[0].upper()}{key[1:]}")
        parts.append(f"Tenants have {least:,} to {most:,} rows, {median:,} in the median.")
        parts += [f"Left out: {why}." for why in result["left_out"]]
        parts.append(markdown_table(("asked for", "measured", "target", "met"), targets(result)))
        parts += [comparison(result), buckets(result), memory(result), sweeps(result)]
    return parts


def comparison(result: Found) -> str:
    ours, rows = default(result), []
    for name, fact in result["facts"].items():
        for wanted in (RECALL, 0.99):
            point = ours if name == "lakelet" and wanted == RECALL else reaching(of(result, name), wanted)
            if point is None:
                best = max(of(result, name), key=lambda each: each["recall"])
                rows.append((fact["label"], f"{wanted} not reached", best["recall"], *[""] * 7))
                continue
            if wanted > RECALL and point is reaching(of(result, name), RECALL) and name != "lakelet":
                continue
            setting = f"{fact['knob']} {point['name']}".strip() if fact["knob"] else "exact"
            figures = [point[each] for each in POINT]
            figures += [1e6 / point["mean"], ours["mean"] / point["mean"], point["queries"]]
            rows.append((fact["label"], setting, *figures))
    columns = ("system", "setting", *POINT.values(), "queries/s", "lakelet / it", "queries")
    return (
        f"At the first setting of each that finds {RECALL}, and below it 0.99 (lakelet / it: mean of lakelet's default "
        "over its mean; below 1 lakelet is faster):\n\n" + markdown_table(columns, rows)
    )


def buckets(result: Found) -> str:
    names = [name for name in result["facts"] if any(name in bucket for bucket in result["buckets"])]
    rows = []
    for bucket in result["buckets"]:
        figures = [bucket.get(name, "") for name in names]
        rows.append((bucket_name(bucket), bucket["tenants"], *figures, bucket["recall"]))
    columns = ("rows of the tenant", "tenants", *(f"{name} µs" for name in names), "lakelet's recall")
    tenants = result["tenants"]
    return (
        "By size of the tenant, tenants of a size drawn alike:\n\n"
        + markdown_table(columns, rows)
        + f"\n\nAll tenants alike: recall {tenants['tenant_recall']:.4f} in the mean, {tenants['p1_recall']:.3f} at "
        f"the 1st percentile of tenants, {tenants['least_recall']:.3f} at the least. The first search of a tenant, "
        f"which makes what lakelet derives from its list, took {tenants['first_mean']:.0f} µs in the mean and "
        f"{tenants['first_max']:,.0f} at most."
    )


def bucket_name(bucket: Found) -> str:
    if bucket["low"] <= 1:
        return f"below {bucket['high']:,}"
    return f"{bucket['low']:,} to {bucket['high']:,}" if bucket["high"] < 1 << 50 else f"{bucket['low']:,} and more"


def memory(result: Found) -> str:
    rows = []
    for name, fact in result["facts"].items():
        times = fact["bytes"] / result["memory"]
        figures = (beyond(result, name), fact["bytes"] / 2**20, fact["resident"] / 2**20, times, fact["seconds"])
        rows.append((fact["label"], *figures))
    columns = ("system", "bytes a vector beyond raw", "MiB", "MiB resident", "it / lakelet", "build s")
    return markdown_table(columns, rows)


def sweeps(result: Found) -> str:
    rows = []
    for point in result["points"]:
        fact = result["facts"][point["system"]]
        figures = [point[each] for each in (*POINT, "queries")]
        spread = max(point["rounds"]) / min(point["rounds"])
        rows.append((fact["label"], f"{fact['knob']} {point['name']}".strip(), *figures, spread))
    columns = ("system", "setting", *POINT.values(), "queries", "slowest / fastest round")
    return "All settings:\n\n" + markdown_table(columns, rows)


def draw(found: dict[str, Found], path: Path) -> None:
    """Recall and queries a second on the left, latency by size of the tenant on the right, a line a key."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no picture: matplotlib is not installed")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(found), 2, figsize=(12, 4 * len(found)), squeeze=False, layout="constrained")
    for (key, result), (left, right) in zip(found.items(), axes, strict=True):
        colours = {name: f"C{number}" for number, name in enumerate(result["facts"])}
        for name, fact in result["facts"].items():
            points = sorted(of(result, name), key=lambda point: point["recall"])
            rates = [1e6 / point["mean"] for point in points]
            recalls = [point["recall"] for point in points]
            left.plot(recalls, rates, marker="o", markersize=4, color=colours[name], label=fact["label"])
        first = default(result)
        left.plot(first["recall"], 1e6 / first["mean"], "k*", markersize=12, label="lakelet's default")
        left.set(yscale="log", xlim=(0.5, 1.005), xlabel="recall@10", ylabel="queries a second, 1 thread", title=key)
        left.legend(fontsize=7)
        places = [bucket_name(bucket) for bucket in result["buckets"]]
        for name in result["facts"]:
            if all(name in bucket for bucket in result["buckets"]):
                means = [bucket[name] for bucket in result["buckets"]]
                right.plot(places, means, marker="o", color=colours[name], label=name)
        right.set(yscale="log", xlabel="rows of the tenant", ylabel="mean µs a query", title=key)
        right.tick_params(axis="x", labelsize=7)
        right.legend(fontsize=7)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def versions(systems: list[System]) -> str:
    """The packages of the systems with their versions."""
    named = []
    for package in dict.fromkeys(system.package for system in systems):
        distribution = {"faiss": "faiss-cpu"}.get(package, package)
        try:
            named.append(f"{distribution} {importlib.metadata.version(distribution)}")
        except importlib.metadata.PackageNotFoundError:
            named.append(package)
    return ", ".join(named)
