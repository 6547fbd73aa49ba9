"""The frontier as an SVG: what is saved in a month against the restore-time limit that a person would accept."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from ..lake.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import pyarrow as pa

__all__ = ["draw_frontier"]

WIDTH: Final = 860
HEIGHT: Final = 440
LEFT, RIGHT, TOP, BOTTOM = 96, 32, 64, 64
_STYLE: Final = """
text { font: 12px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #334155; }
.title { font-size: 18px; font-weight: 600; fill: #0f172a; }
.axis { stroke: #94a3b8; }
.line { fill: none; stroke: #2563eb; stroke-width: 2; }
.area { fill: #2563eb; opacity: 0.08; }
.chosen { fill: #f59e0b; }
.limit { stroke: #f59e0b; stroke-dasharray: 4 3; }
"""


def draw_frontier(frontier: pa.Table, limit_seconds: float, saves: float, path: str | PathLike[str]) -> None:
    """Write the step curve of ``Plan.frontier()`` with the chosen plan marked. Raises Unavailable when it cannot."""
    seconds = frontier.column("max_restore_seconds").to_pylist()
    dollars = frontier.column("saves_per_month").to_pylist()
    try:
        with open(os.fspath(path), "w", encoding="utf-8") as file:
            file.write(_svg(seconds, dollars, limit_seconds, saves))
    except OSError as error:
        raise Unavailable(f"{os.fspath(path)} cannot be written: {error}. Name another file.") from error


def _svg(seconds: Sequence[float], dollars: Sequence[float], limit: float, saves: float) -> str:
    low = min([*seconds, limit, 1.0]) / 2
    high = max([*seconds, limit, low * 10]) * 2
    most = max([*dollars, saves, 1e-9]) * 1.1

    def x(value: float) -> float:
        share = (math.log10(max(value, low)) - math.log10(low)) / (math.log10(high) - math.log10(low))
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - max(value, 0.0) / most * (HEIGHT - TOP - BOTTOM)

    points = [(x(low), y(0.0))]
    for second, dollar in zip(seconds, dollars, strict=True):
        points += [(x(second), points[-1][1]), (x(second), y(dollar))]
    points.append((x(high), points[-1][1]))
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    base = HEIGHT - BOTTOM
    ticks = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    marks = "".join(
        f'<line class="axis" x1="{x(t):.1f}" y1="{base}" x2="{x(t):.1f}" y2="{base + 5}"/>'
        f'<text x="{x(t):.1f}" y="{base + 20}" text-anchor="middle">{t:g} s</text>'
        for t in ticks
        if low <= t <= high
    )
    marks += "".join(
        f'<line class="axis" x1="{LEFT - 5}" y1="{y(v):.1f}" x2="{LEFT}" y2="{y(v):.1f}"/>'
        f'<text x="{LEFT - 10}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.3g}</text>'
        for v in (most * step / 4 / 1.1 for step in range(5))
    )
    title = escape(f"{saves:.3g} USD a month saved when a restore may take {limit:g} s")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{title}</title>'
        f"<style>{_STYLE}</style>"
        f'<text class="title" x="{LEFT}" y="32">{title}</text>'
        f'<polygon class="area" points="{line} {x(high):.1f},{base} {LEFT},{base}"/>'
        f'<polyline class="line" points="{line}"/>'
        f'<line class="limit" x1="{x(limit):.1f}" y1="{TOP}" x2="{x(limit):.1f}" y2="{base}"/>'
        f'<circle class="chosen" cx="{x(limit):.1f}" cy="{y(saves):.1f}" r="5"/>'
        f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>'
        f'<line class="axis" x1="{LEFT}" y1="{TOP}" x2="{LEFT}" y2="{base}"/>{marks}'
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 16}" text-anchor="middle">'
        "longest restore that is accepted</text>"
        f'<text x="20" y="{(TOP + base) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 20 {(TOP + base) / 2:.0f})">USD saved a month</text></svg>\n'
    )
