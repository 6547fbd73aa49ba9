"""An index as one file, and back: :mod:`.container` holds the arrays, this says which they are.

Every unit is written as it is, its posting lists without revisions; nothing is merged or trained. Opened by mapping the
file, an index takes memory for what is looked at; what it changes, it changes in memory alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from ..lake.errors import Corrupt
from . import container
from .attributes import declared, name_of
from .budget import Budget, usual_bands
from .building import Settings
from .codes import layout
from .delta import Delta
from .fine import Fine
from .graph import Graph
from .labels import PUBLIC, Everyone, LabelTable
from .matching import frozen, table_of
from .metrics import Metric
from .nodes import Nodes, no_nodes
from .osq import rebuilt
from .postings import FrozenPostings, folded
from .segment import Rows, Segment
from .stored_columns import column_arrays, columns_of

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .compaction import Unit
    from .labels import Label

__all__ = ["KIND", "Contents", "held", "opened", "taken", "written"]

KIND: Final = "vector index"
PART: Final = ("mean", "axes", "bits", "cells", "gaps", "energy")
"""What is kept of how fine codes are made."""


class Contents(NamedTuple):
    """What an index is: all that is stored of it."""

    settings: Settings
    labels: LabelTable
    tenanted: bool
    next_id: int
    units: tuple[Unit, ...]


def taken(contents: Contents) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The JSON and the arrays of an index as it is now; call it where no writer is at work.

    Arrays that never change are not copied.
    """
    settings = contents.settings
    arrays: dict[str, NDArray[Any]] = dict(_label_arrays(contents.labels))
    kinds = []
    for number, unit in enumerate(contents.units):
        made = _segment_arrays(unit) if isinstance(unit, Segment) else _delta_arrays(unit)
        arrays.update({f"{number}.{name}": array for name, array in made.items()})
        kinds.append("segment" if isinstance(unit, Segment) else "delta")
    meta = {
        "dim": settings.dim,
        "metric": settings.metric.name,
        "seed": settings.seed,
        "graph": settings.graph,
        "bits": settings.bits,
        "keep_vectors": settings.keep_vectors,
        "tenanted": contents.tenanted,
        "next_id": contents.next_id,
        "units": kinds,
        "attributes": None
        if settings.schema is None
        else [[each.name, name_of(each.type)] for each in settings.schema],
    }
    return meta, arrays


def written(path: str | os.PathLike[str], meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Write what :func:`taken` took, in place of what stood at ``path``, whole or not at all."""
    container.write(path, kind=KIND, meta=meta, arrays=arrays)


def opened(path: str | os.PathLike[str], *, mmap: bool, verify: bool, threads: int) -> Contents:
    """Read an index. See :func:`.container.read` for the errors."""
    meta, arrays = container.read(path, kind=KIND, mmap=mmap, verify=verify)
    return held(path, meta, arrays, threads=threads)


def held(
    path: str | os.PathLike[str], meta: dict[str, Any], arrays: dict[str, NDArray[Any]], *, threads: int
) -> Contents:
    """The index that the JSON and the arrays of a file hold; Corrupt when they hold none."""
    try:
        metric, dim, seed = Metric[meta["metric"]], int(meta["dim"]), int(meta["seed"])
        named = meta.get("attributes")
        schema = None if named is None else declared(dict(named))
        settings = Settings(dim, metric, layout(dim, seed), seed, threads, bool(meta["graph"]), schema)
        bits = meta.get("bits")  # files of before lack it, and what follows
        kept = bool(meta.get("keep_vectors", True))
        settings = settings._replace(bits=None if bits is None else int(bits), keep_vectors=kept)
        labels = _labels(arrays)
        units: list[Unit] = []
        for number, kind in enumerate(meta["units"]):
            mine = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{number}.")}
            units.append(_segment(mine, settings) if kind == "segment" else _delta(mine, settings))
        return Contents(settings, labels, bool(meta["tenanted"]), int(meta["next_id"]), tuple(units))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise Corrupt(f"{path} is no whole vector index: {error!r}; restore it from a copy", path=str(path)) from error


def _label_arrays(labels: LabelTable) -> dict[str, NDArray[Any]]:
    """Texts of labels one after another, where each ends, and per code: 0 str, 1 int, 2 public, 3 not in use."""
    known = dict(labels.known())
    texts = [
        b"" if isinstance(label, Everyone) else str(label).encode("utf-8", "surrogatepass") for label in labels.labels
    ]
    kinds = [
        3 if known.get(label) != code else 2 if label is PUBLIC else 1 if isinstance(label, int) else 0
        for code, label in enumerate(labels.labels)
    ]
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return {
        "label_text": np.frombuffer(b"".join(texts), np.uint8),
        "label_ends": ends,
        "label_kinds": np.array(kinds, np.uint8),
    }


def _labels(arrays: dict[str, NDArray[Any]]) -> LabelTable:
    text, ends, kinds = (arrays[f"label_{name}"] for name in ("text", "ends", "kinds"))
    whole, starts = text.tobytes(), [0, *ends.tolist()]
    parts = [
        whole[start:end].decode("utf-8", "surrogatepass") for start, end in zip(starts, ends.tolist(), strict=False)
    ]
    labels: list[Label] = [int(part) if kind == 1 else part for part, kind in zip(parts, kinds.tolist(), strict=True)]
    return LabelTable.restored(labels[1:], [code for code, kind in enumerate(kinds.tolist()) if kind == 3])


def _lists(unit: Unit) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """All posting lists of a unit as offsets by code and positions."""
    of = {code: folded(unit.postings.get(code)) for code in unit.postings.codes()}
    lengths = np.zeros(max(of, default=-1) + 1, np.int64)
    for code, positions in of.items():
        lengths[code] = len(positions)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    parts = [of[code] for code in sorted(of)]
    return offsets, np.concatenate([np.empty(0, np.uint32), *parts])


def _row_arrays(unit: Unit) -> dict[str, NDArray[Any]]:
    rows, count = unit.rows, len(unit)
    offsets, positions = _lists(unit)
    return {
        "vectors": rows.vectors[:count],
        "records": rows.records[:count],
        "ids": rows.ids[:count],
        "live": rows.live[:count].copy(),
        "mean": rows.mean,
        "list_offsets": offsets,
        "list_positions": positions,
    }


def _segment_arrays(segment: Segment) -> dict[str, NDArray[Any]]:
    nodes, budget = segment.rows.nodes, segment.budget
    made = _row_arrays(segment) | {"id_order": segment.id_order} | column_arrays(segment.columns)
    made |= {f"node_{name}": getattr(nodes, name) for name in Nodes.__slots__}
    if segment.graph is not None:
        made |= {f"graph_{name}": getattr(segment.graph, name) for name in Graph.__slots__}
    fine = segment.rows.fine
    if fine is not None:
        made |= {f"fine_{name}": getattr(fine.part, name) for name in PART}
        made |= {"fine_records": fine.records, "fine_depth": np.array([fine.depth])}
    return made | {f"budget_{name}": getattr(budget, name) for name in Budget.__slots__}


def _segment(arrays: dict[str, NDArray[Any]], settings: Settings) -> Segment:
    nodes = Nodes(**{name: arrays[f"node_{name}"] for name in Nodes.__slots__})
    rows = _rows(arrays, settings, nodes)
    if settings.bits is not None:
        part = rebuilt(*(arrays[f"fine_{name}"] for name in PART))
        rows = replace(rows, fine=Fine(part, arrays["fine_records"], float(arrays["fine_depth"][0])))
        _agree(len(rows.ids), arrays["fine_records"])
    _agree(
        len(rows.ids), rows.vectors if settings.keep_vectors else rows.ids, rows.records, rows.live, arrays["id_order"]
    )
    postings = FrozenPostings(arrays["list_offsets"], arrays["list_positions"])
    ranked, bands = arrays["budget_ranked"], usual_bands(settings.layout.bits)  # files of before lack what follows
    budget = Budget(
        arrays["budget_lengths"],
        arrays["budget_scored"],
        ranked,
        arrays.get("budget_expected", ranked),
        arrays.get("budget_whole", ranked),
        arrays.get("budget_bands", bands),
    )
    graph = Graph(**{name: arrays[f"graph_{name}"] for name in Graph.__slots__}) if "graph_links" in arrays else None
    columns = columns_of(arrays, settings.schema, len(rows.ids))
    segment = Segment(rows, arrays["id_order"], postings, budget, graph, columns)
    segment.deleted = int(np.count_nonzero(rows.live == 0))
    return segment


def _delta_arrays(delta: Delta) -> dict[str, NDArray[Any]]:
    columns = frozen(table_of(delta.columns, np.arange(len(delta)))) if delta.columns else {}
    return _row_arrays(delta) | {"capacity": np.array([delta.capacity])} | column_arrays(columns)


def _delta(arrays: dict[str, NDArray[Any]], settings: Settings) -> Delta:
    """A delta with room again: its rows are copied into one."""
    rows = _rows(arrays, settings, no_nodes(settings.dim))
    _agree(len(rows.ids), rows.vectors, rows.records, rows.live)
    capacity = int(arrays["capacity"][0])
    delta = Delta(capacity, rows.mean, settings.layout, settings.metric, rows.nodes, settings.schema)
    columns = columns_of(arrays, settings.schema, len(rows.ids))
    attributes = table_of(columns, np.arange(len(rows.ids))) if columns else None
    offsets, positions = arrays["list_offsets"], arrays["list_positions"]
    codes = np.repeat(np.arange(len(offsets) - 1, dtype=np.int32), np.diff(offsets))
    by_row = np.argsort(positions, kind="stable")
    row_offsets = np.searchsorted(positions[by_row], np.arange(len(rows.ids) + 1))
    delta.append(rows.vectors, rows.ids, (row_offsets, codes[by_row]), attributes)
    delta.rows.live[: len(rows.live)] = rows.live
    return delta


def _rows(arrays: dict[str, NDArray[Any]], settings: Settings, nodes: Nodes) -> Rows:
    vectors, records, ids, live, mean = (arrays[name] for name in ("vectors", "records", "ids", "live", "mean"))
    return Rows(vectors, records, ids, live, mean, settings.layout, settings.metric, nodes)


def _agree(count: int, *arrays: Sequence[Any] | NDArray[Any]) -> None:
    lengths = [len(array) for array in arrays]
    if any(length != count for length in lengths):
        raise ValueError(f"{count} ids beside arrays of {lengths} rows")
