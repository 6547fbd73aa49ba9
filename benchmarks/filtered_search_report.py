"""The tables, the targets and the picture of what ``filtered_search.py`` measured."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from machine import markdown_table

RECALL = 0.95
"""Systems are compared at the first setting that finds so much."""
MIDDLE, TIMES = (1, 30), 3.0
"""Percents that pass, from and to, where we are to be so many times as fast as the best peer."""
LEAST_QPS = {"squash": 1_500}
"""Asked for by kind of predicate."""
PLANNER = 1.5
"""The planner's way may take so many times what the best single way takes."""
OURS = "lakelet"
Found = dict[str, Any]


def best_peer(found: Found, point: Found) -> str | None:
    """The quickest of the yardsticks that find enough."""
    names = [name for name, each in point["systems"].items() if name != OURS and each["recall"] >= RECALL]
    names = [name for name in names if found["facts"][name]["yardstick"]]
    return max(names, key=lambda name: point["systems"][name]["qps"], default=None)


def ratio(found: Found, point: Found) -> float | None:
    """How many times as fast as the best peer we are."""
    peer, ours = best_peer(found, point), point["systems"].get(OURS)
    return ours["qps"] / point["systems"][peer]["qps"] if peer and ours else None


def path_ratio(point: Found) -> float | None:
    """How many times as long as the quickest single way that finds enough the planner's way takes."""
    rates = [each["qps"] for each in point["paths"].values() if each["recall"] >= RECALL]
    return max(rates) / point["systems"][OURS]["qps"] if rates and OURS in point["systems"] else None


def targets(found: Found) -> list[tuple[str, str, str, str]]:
    """What was asked for, the figure and where it is the worst, the target, whether it is met."""
    points, rows = found["points"], []

    def line(
        what: str, figures: dict[str, float], least: float | None, most: float | None = None, unit: str = ""
    ) -> None:
        if not figures:
            return
        worst = min(figures, key=lambda name: figures[name]) if most is None else max(figures, key=figures.__getitem__)
        figure = figures[worst]
        met = figure >= least if least is not None else most is not None and figure <= most
        target = f">= {least:,g}{unit}" if least is not None else f"<= {most:,g}{unit}"
        shown = f"{figure:,.3g}" if figure < 1000 else f"{figure:,.0f}"
        rows.append((what, f"{shown}{unit} ({worst})", target, "yes" if met else "**no**"))

    ours = {name: point["systems"][OURS] for name, point in points.items() if OURS in point["systems"]}
    ratios = {name: each for name, point in points.items() if (each := ratio(found, point)) is not None}
    line("rows that fail the predicate, or are there twice", {n: points[n][OURS]["wrong"] for n in ours}, None, 0)
    line("answers that are not min(k, matches) rows", {n: points[n][OURS]["short"] for n in ours}, None, 0)
    line("recall", {name: each["recall"] for name, each in ours.items()}, RECALL)
    single = {name: each for name, each in ratios.items() if points[name]["kind"] not in LEAST_QPS}
    middle = {name: each for name, each in single.items() if MIDDLE[0] <= points[name]["percent"] <= MIDDLE[1]}
    line(f"over the best peer, {MIDDLE[0]} to {MIDDLE[1]} % pass", middle, TIMES, unit="x")
    line("over the best peer, everywhere", ratios, 1, unit="x")
    for kind, least in LEAST_QPS.items():
        line(f"queries a second, {kind}", {n: each["qps"] for n, each in ours.items() if n == kind}, least)
    paths = {name: each for name, point in points.items() if (each := path_ratio(point)) is not None}
    line("the planner's way over the best single way", paths, None, PLANNER, "x")
    return rows


def all_met(found: Found) -> bool:
    return all(met != "**no**" for *_, met in targets(found))


def sections(found: Found, missing: list[str], picture: str) -> list[str]:
    """The text of the results file."""
    parts = [
        "One query a call, k = 10, one thread; systems take turns, a query's latency is its median over the rounds, "
        "and queries a second are of the mean of these. A peer is shown at its first setting that finds "
        f"{RECALL}: queries a second, then recall and setting; or, where no setting finds so much, at the one that "
        "finds the most (no slower setting is tried once a query takes 0.25 s). Systems that filter by masks are given "
        "them for free, in the form they take, and none where all rows pass, which favours them; except in squash, "
        "where each query has a predicate of its own and NumPy makes the mask while the clock runs. The scan is given "
        "the numbers of the passing rows and gathers the rows itself; the scan of a copy of the passing rows, made "
        "beforehand, is shown and not compared with."
    ]
    parts.append("Left out: " + "; ".join(missing) + ".")
    if picture:
        parts.append(f"![queries a second by selectivity]({picture})")
    if asked := targets(found):
        parts.append(markdown_table(("asked for", "the worst (where)", "target", "met"), asked))
    for kind in kinds_of(found):
        points = [point for point in found["points"].values() if point["kind"] == kind]
        parts.append(f"## {kind[0].upper()}{kind[1:]}\n\n{of_kind(found, points)}")
    parts += [*paths(found), "## Memory\n\n" + memory(found)]
    return parts


def kinds_of(found: Found) -> list[str]:
    return list(dict.fromkeys(point["kind"] for point in found["points"].values()))


def of_kind(found: Found, points: list[Found]) -> str:
    """A line a selectivity."""
    names = [name for name in found["facts"] if name != OURS and any(name in point["systems"] for point in points)]
    lines = []
    for point in points:
        ours, times = point["systems"].get(OURS), ratio(found, point)
        line: list[object] = [f"{point['percent']:g}", round(point["matches"])]
        if ours:
            setting = "" if ours["setting"] is None else f" (ef {ours['setting']})"
            line += [f"{ours['recall']:.3f}{setting}", round(ours["qps"]), ours["p99"], ", ".join(point[OURS]["ways"])]
        else:
            line += [""] * 4
        line += [cell(point["systems"].get(name)) for name in names]
        line += [best_peer(found, point) or "none", "" if times is None else f"{times:.2f}x"]
        lines.append(line)
    columns = ["% pass", "rows", "recall", "queries/s", "p99 µs", "way", *names, "best peer", "lakelet / it"]
    return markdown_table(columns, lines)


def cell(figures: Found | None) -> str:
    """A peer at a point."""
    if figures is None:
        return ""
    setting = figures["setting"]
    shown = (
        ""
        if setting is None
        else ", " + (" ".join(map(str, setting)) if isinstance(setting, list | tuple) else str(setting))
    )
    if figures["recall"] < RECALL:
        return f"best {figures['recall']:.3f} ({figures['qps']:,.0f}{shown})"
    rate = f"{figures['qps']:,.0f}" if figures["qps"] >= 10 else f"{figures['qps']:.1f}"
    return f"{rate} ({figures['recall']:.3f}{shown})"


def paths(found: Found) -> list[str]:
    """The planner's way beside each single one, where the index can be made to take them."""
    lines = []
    for name, point in found["points"].items():
        if point["paths"]:
            each = ", ".join(f"{way} {cell(figures)}" for way, figures in point["paths"].items())
            times = path_ratio(point)
            taken = ", ".join(point[OURS]["ways"])
            lines.append((name, taken, cell(point["systems"][OURS]), each, "" if times is None else f"{times:.2f}x"))
    if not lines:
        return []
    columns = ("point", "the planner takes", "its", "single ways", "best single way / its")
    return ["## The planner\n\n" + markdown_table(columns, lines)]


def memory(found: Found) -> str:
    lines = []
    for fact in found["facts"].values():
        sizes = {each: size / found["rows"] for each, size in fact["bytes"].items()}
        beyond = sizes["total"] - found["raw"] / found["rows"]
        parts = [round(sizes[part], 1) if part in sizes else "" for part in ("codes", "attributes", "values")]
        lines.append((fact["label"], fact["knob"], *parts, round(sizes["total"]), round(beyond), fact["seconds"]))
    columns = ("system", "settings", "codes", "attributes", "values", "total", "beyond raw", "build s")
    return (
        "Bytes a row; those of peers are of their files, with raw vectors where they keep or need these, and without "
        "attributes and masks; of LanceDB, of all that is on disk.\n\n" + markdown_table(columns, lines)
    )


def draw(found: Found, path: Path) -> None:
    """Queries a second by selectivity, a picture a kind; points that do not find enough are left out."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no picture: matplotlib is not installed")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    kinds = kinds_of(found)
    across = min(3, len(kinds))
    down = -(-len(kinds) // across)
    figure, axes = plt.subplots(down, across, figsize=(5 * across, 4 * down), squeeze=False, layout="constrained")
    for axis in axes.flat[len(kinds) :]:
        axis.set_visible(False)
    for kind, axis in zip(kinds, axes.flat, strict=False):
        points = [point for point in found["points"].values() if point["kind"] == kind]
        for number, (name, fact) in enumerate(found["facts"].items()):
            reached = [
                point for point in points if name in point["systems"] and point["systems"][name]["recall"] >= RECALL
            ]
            shares = [point["percent"] for point in reached]
            rates = [point["systems"][name]["qps"] for point in reached]
            style = {"linestyle": "-" if fact["yardstick"] else ":", "linewidth": 2.5 if name == OURS else 1}
            axis.plot(shares, rates, marker="o", markersize=3, color=f"C{number}", label=name, **style)
        axis.set(
            xscale="log", yscale="log", xlabel="% of rows that pass", ylabel=f"queries a second at {RECALL}", title=kind
        )
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=7)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
