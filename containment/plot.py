"""The reduced containment graph as an SVG: one cluster for each connected set of tables, parents above children.

Own layout and plain text rather than a drawing library: clusters are small, and the file needs no dependency.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape, quoteattr

from ..lake.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

__all__ = ["Picture", "draw"]

WIDTH: Final = 1600
MARGIN: Final = 40
TOP: Final = 96
GAP: Final = 28
LAYER_HEIGHT: Final = 104
LABEL_WIDTH: Final = 128
LABEL_LETTERS: Final = 17
RADIUS_LEAST, RADIUS_MOST = 5.0, 30.0
BOXES_MOST: Final = 600
"""Groups drawn; the clusters with the most bytes come first, and a line says how many are left out."""

_STYLE: Final = """
text { font: 11px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #334155; }
.title { font-size: 20px; font-weight: 600; fill: #0f172a; }
.note { font-size: 13px; fill: #64748b; }
.card { fill: #ffffff; stroke: #e2e8f0; }
.kept { fill: #2563eb; }
.inside { fill: #f59e0b; }
.copies { font-size: 10px; font-weight: 600; fill: #ffffff; }
.edge { fill: none; stroke: #94a3b8; stroke-width: 1.4; }
.partial { stroke-dasharray: 4 3; }
"""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn. By group: ``labels`` (its representative), ``copies`` (tables in it), ``num_bytes`` (of one).

    ``edges``: (child group, parent group, fraction). ``tables`` and ``redundant_bytes`` speak of the whole lake.
    """

    labels: tuple[str, ...]
    copies: tuple[int, ...]
    num_bytes: tuple[int, ...]
    edges: tuple[tuple[int, int, float], ...]
    tables: int
    redundant_bytes: int


@dataclass(frozen=True, slots=True)
class _Cluster:
    """One connected set of groups, placed: ``at[group]`` is (x, y) from the cluster's corner."""

    at: dict[int, tuple[float, float]]
    width: float
    height: float


def draw(picture: Picture, path: str | PathLike[str]) -> None:
    """Write the picture as SVG; the file is replaced when it is complete. Unavailable: it cannot be written."""
    text = svg(picture)
    target = os.fspath(path)
    partial = f"{target}.{os.getpid()}.part"
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(partial, target)
    except OSError as e:
        if os.path.exists(partial):
            os.unlink(partial)
        raise Unavailable(f"{target} cannot be written: {e.strerror}. Name a file in a folder that exists.") from e


def svg(picture: Picture) -> str:
    """The picture as SVG text."""
    clusters, hidden = _clusters(picture)
    parts: list[str] = []
    x, y, shelf = float(MARGIN), float(TOP), 0.0
    for cluster in clusters:
        if x > MARGIN and x + cluster.width > WIDTH - MARGIN:
            x, y, shelf = float(MARGIN), y + shelf + GAP, 0.0
        parts.append(_drawn(picture, cluster, x, y))
        x += cluster.width + GAP
        shelf = max(shelf, cluster.height)
    width = max([WIDTH, *(math.ceil(cluster.width) + 2 * MARGIN for cluster in clusters)])
    height = math.ceil(y + shelf + MARGIN)
    in_clusters = sum(picture.copies)
    note = (
        f"{in_clusters:,} of {picture.tables:,} tables in {len(clusters):,} cluster{'s' * (len(clusters) != 1)}; "
        f"{_amount(picture.redundant_bytes)} redundant"
    )
    if hidden:
        note += f"; {hidden:,} groups in smaller clusters are not drawn"
    legend = (
        f'{_badge(width - 618, 58, 2)}<text x="{width - 592}" y="62">two tables alike</text>'
        f'<circle class="kept" cx="{width - 470}" cy="58" r="7"/><text x="{width - 456}" y="62">kept</text>'
        f'<circle class="inside" cx="{width - 400}" cy="58" r="7"/><text x="{width - 386}" y="62">contained</text>'
        f'<path class="edge" d="M{width - 310} 58h34" marker-end="url(#tip)"/>'
        f'<text x="{width - 266}" y="62">is contained in</text>'
        f'<path class="edge partial" d="M{width - 160} 58h34" marker-end="url(#tip)"/>'
        f'<text x="{width - 116}" y="62">in part</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        f"<title>Containment graph</title>\n<style>{_STYLE}</style>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path d="M0 0.5 L8 4 L0 7.5 z" fill="#94a3b8"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" fill="#f8fafc"/>\n'
        f'<text class="title" x="{MARGIN}" y="44">Which tables are contained in which</text>\n'
        f'<text class="note" x="{MARGIN}" y="66">{escape(note)}</text>\n{legend}\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _clusters(picture: Picture) -> tuple[list[_Cluster], int]:
    """The connected sets, placed, those of most bytes first; and how many groups are left out."""
    near: defaultdict[int, set[int]] = defaultdict(set)
    for child, parent, _ in picture.edges:
        near[child].add(parent)
        near[parent].add(child)
    seen: set[int] = set()
    found: list[list[int]] = []
    for start in range(len(picture.labels)):
        if start in seen:
            continue
        seen.add(start)
        members, waiting = [], [start]
        while waiting:
            group = waiting.pop()
            members.append(group)
            fresh = near[group] - seen
            seen |= fresh
            waiting.extend(sorted(fresh))
        found.append(sorted(members))
    found.sort(key=lambda members: (-sum(picture.num_bytes[g] * picture.copies[g] for g in members), members))
    placed, drawn = [], 0
    for members in found:
        if drawn and drawn + len(members) > BOXES_MOST:
            break
        drawn += len(members)
        placed.append(_placed(picture, members))
    return placed, len(picture.labels) - drawn


def _upward(picture: Picture) -> list[tuple[int, int]]:
    """Whole edges without circles: of two groups that contain each other, the later is under the earlier."""
    whole = {(child, parent) for child, parent, fraction in picture.edges if fraction == 1.0}
    return sorted((c, p) for c, p in whole if c > p or (p, c) not in whole)


def _placed(picture: Picture, members: Sequence[int]) -> _Cluster:
    """Layers by the longest way up to a group without parent; inside a layer near the parents' middle."""
    inside = set(members)
    parents: defaultdict[int, list[int]] = defaultdict(list)
    for child, parent in _upward(picture):
        if child in inside:
            parents[child].append(parent)
    depth: dict[int, int] = {}
    for start in members:
        waiting = [start]
        while waiting:
            group = waiting[-1]
            missing = [p for p in parents[group] if p not in depth]
            if missing:
                waiting.extend(missing)
            else:
                depth[group] = 1 + max((depth[p] for p in parents[group]), default=-1)
                waiting.pop()
    layers: defaultdict[int, list[int]] = defaultdict(list)
    for group in members:
        layers[depth[group]].append(group)
    widest = max(len(layer) for layer in layers.values())
    per_row = max(1, min(widest, (WIDTH - 2 * MARGIN) // LABEL_WIDTH))
    width = float(max(per_row * LABEL_WIDTH, LABEL_WIDTH) + 16)
    at: dict[int, tuple[float, float]] = {}
    row = 0
    for number in sorted(layers):
        layer = layers[number]
        middle = {g: sum(at[p][0] for p in parents[g]) / max(1, len(parents[g])) for g in layer}
        layer.sort(key=lambda g, middle=middle: (middle[g], -picture.num_bytes[g], g))  # type: ignore[misc]
        for start in range(0, len(layer), per_row):
            part = layer[start : start + per_row]
            step = (width - 16) / len(part)
            for i, group in enumerate(part):
                at[group] = 8 + step * (i + 0.5), 44.0 + row * LAYER_HEIGHT
            row += 1
    return _Cluster(at, width, 44.0 + (row - 1) * LAYER_HEIGHT + 62.0)


def _drawn(picture: Picture, cluster: _Cluster, x: float, y: float) -> str:
    most = max([1, *picture.num_bytes])
    inside = {child for child, _ in _upward(picture)}

    def radius(group: int) -> float:
        share = math.sqrt(picture.num_bytes[group] / most)
        return RADIUS_LEAST + (RADIUS_MOST - RADIUS_LEAST) * share

    parts = [
        f'<g transform="translate({x:.1f} {y:.1f})">'
        f'<rect class="card" width="{cluster.width:.1f}" height="{cluster.height:.1f}" rx="10"/>'
    ]
    for child, parent, fraction in picture.edges:
        if child in cluster.at and parent in cluster.at:
            parts.append(_edge(cluster.at[child], cluster.at[parent], radius(child), radius(parent), fraction))
    for group, (cx, cy) in cluster.at.items():
        label, copies = picture.labels[group], picture.copies[group]
        size = radius(group)
        title = f"{label}: {_amount(picture.num_bytes[group])}" + (f", {copies} tables alike" if copies > 1 else "")
        parts.append(
            f'<g><title>{escape(title)}</title><circle class="{"inside" if group in inside else "kept"}" '
            f'cx="{cx:.1f}" cy="{cy:.1f}" r="{size:.1f}"/>'
            f'<text x="{cx:.1f}" y="{cy + size + 14:.1f}" text-anchor="middle">{escape(_short(label))}</text>'
            f'<text x="{cx:.1f}" y="{cy + size + 27:.1f}" text-anchor="middle" class="note" '
            f'style="font-size:10px">{_amount(picture.num_bytes[group])}</text>'
        )
        if copies > 1:
            parts.append(_badge(cx + size * 0.7 + 4, cy - size * 0.7 - 8, copies))
        parts.append("</g>")
    parts.append("</g>")
    return "".join(parts)


def _badge(x: float, y: float, copies: int) -> str:
    """How many tables a circle stands for; (x, y) is the badge's left middle."""
    width = 14 + 7 * len(str(copies))
    return (
        f'<rect x="{x:.1f}" y="{y - 8:.1f}" width="{width}" height="16" rx="8" fill="#0f172a"/>'
        f'<text class="copies" x="{x + width / 2:.1f}" y="{y + 3.5:.1f}" text-anchor="middle">&#215;{copies}</text>'
    )


def _edge(
    child: tuple[float, float], parent: tuple[float, float], child_radius: float, parent_radius: float, fraction: float
) -> str:
    """A curve from the child up to the parent, ending at the rims."""
    (x1, y1), (x2, y2) = child, parent
    kind = "edge" if fraction == 1.0 else "edge partial"
    if y1 > y2:
        y1, y2 = y1 - child_radius, y2 + parent_radius + 31
        middle = (y1 + y2) / 2
        way = f"M{x1:.1f} {y1:.1f} C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}"
    else:
        lift = min(y1, y2) - 34 - abs(x2 - x1) / 12
        way = f"M{x1:.1f} {y1 - child_radius:.1f} Q{(x1 + x2) / 2:.1f} {lift:.1f} {x2:.1f} {y2 - parent_radius - 2:.1f}"
    title = "" if fraction == 1.0 else f"<title>{fraction:.1%}</title>"
    return f'<path class={quoteattr(kind)} d={quoteattr(way)} marker-end="url(#tip)">{title}</path>'


def _short(label: str) -> str:
    """A label that fits: the end tells tables of one family apart as much as the start does."""
    if len(label) <= LABEL_LETTERS:
        return label
    return f"{label[: LABEL_LETTERS // 2]}…{label[-(LABEL_LETTERS // 2) :]}"


def _amount(num_bytes: float) -> str:
    """Bytes for people: 1.5 MB."""
    for unit in ("B", "KB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" or num_bytes >= 100 else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
