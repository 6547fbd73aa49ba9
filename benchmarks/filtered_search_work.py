"""What ``filtered_search.py`` asks for: vectors with attributes, predicates, and the true answers.

All of it comes from a seed. A predicate is asked for as a text with parameters, and as a mask by NumPy for systems that
take masks; both are made of the same clauses, so that all systems are asked the same.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import machine
import numpy as np
import real_vectors
from multi_tenant_work import Array, vectors_of

if TYPE_CHECKING:
    from collections.abc import Callable

K = 10
SEED = 20_240_621
DATA = {"text256": 400_000, "glove100": 1 << 40, "synthetic1m": 1_000_000, "squash": 1_000_000}
"""The data sets, and how many rows of each are searched unless another number is asked for."""
KINDS = ("label", "range", "in", "four", "label+range", "positive", "negative")
PERCENTS = (0.1, 0.3, 1, 3, 10, 30, 50, 100)
SQUASH_SHARE, SQUASH_TEXTS = 0.08, 6
POOL = 5_000
"""Rows held out for queries; those of correlated predicates are the ones that lie in their region."""
CODES, PRICES, DAYS, CELLS = 1_000, 1_000_000, 3_650, 256
FIRST_DAY = np.datetime64("2015-01-01")
FOUR = ("a", "b", "c", "d")
TYPES = {"label": "string", "status": "string", "code": "string", "day": "date", "price": "int64", "apart": "int64"}
TYPES |= dict.fromkeys(FOUR, "float64")
MOST_BYTES = 6 << 30
"""Of all that this benchmark keeps under ``.cache``."""
_COMPARE: dict[str, Callable[[Array, Any], Array]] = {
    "=": np.equal,
    "<": np.less,
    ">": np.greater,
    ">=": np.greater_equal,
    "IN": np.isin,
}


@dataclass(frozen=True)
class Clause:
    """``column operator value``; the value of IN is a list."""

    column: str
    operator: str
    value: Any


@dataclass(frozen=True)
class Predicate:
    """Clauses that all must hold."""

    clauses: tuple[Clause, ...]

    @cached_property
    def parameters(self) -> dict[str, Any]:
        named = {}
        for place, clause in enumerate(self.clauses):
            each = clause.value if clause.operator == "IN" else [clause.value]
            named |= {f"p{place}_{number}": value for number, value in enumerate(each)}
        return named

    @cached_property
    def text(self) -> str:
        """With parameters."""
        return self._said(lambda name, _: f"${name}")

    @cached_property
    def sql(self) -> str:
        """With literals."""
        return self._said(lambda _, value: _literal(value))

    def _said(self, shown: Callable[[str, Any], str]) -> str:
        parts = []
        for place, clause in enumerate(self.clauses):
            names = [name for name in self.parameters if name.startswith(f"p{place}_")]
            each = ", ".join(shown(name, self.parameters[name]) for name in names)
            parts.append(f"{clause.column} {clause.operator} " + (f"({each})" if clause.operator == "IN" else each))
        return " AND ".join(parts)

    def mask(self, columns: dict[str, Array], rows: Any = slice(None)) -> Array:
        """Which rows pass, of all or of some."""
        passes: Array | None = None
        for clause in self.clauses:
            here = _COMPARE[clause.operator](columns[clause.column][rows], clause.value)
            passes = here if passes is None else np.logical_and(passes, here, out=passes)
        if passes is None:
            raise ValueError("a predicate without clauses")
        return passes


def _literal(value: Any) -> str:
    if isinstance(value, dt.date):
        return f"date '{value}'"
    return f"'{value}'" if isinstance(value, str) else repr(value)


@dataclass(frozen=True)
class Work:
    """What is searched, and what may be asked."""

    base: Array
    pool: Array
    """Queries to choose from."""
    columns: dict[str, Array]
    region: Array
    """The queries of the pool, those first that lie nearest to where ``apart`` is 0."""
    folder: Path
    """Where indexes and truths of this data are kept."""
    threads: int
    """For building."""

    @property
    def types(self) -> dict[str, str]:
        return {name: TYPES[name] for name in self.columns}


@dataclass(frozen=True)
class Point:
    """One selectivity of one kind of predicate; ``predicates`` and ``truth`` (-1 past the matches) by query."""

    name: str
    kind: str
    percent: float
    queries: Array
    predicates: list[Predicate]
    truth: Array
    matches: float
    """Rows that pass, in the mean of the queries."""
    charged: bool
    """A predicate a query: whoever needs a mask makes it while the clock runs."""

    def recall(self, at: int, found: Array) -> float:
        true = self.truth[at]
        true = true[true >= 0]
        return len(np.intersect1d(true, found)) / len(true) if len(true) else 1.0


# --- data ------------------------------------------------------------------------------------------------------------


def work_of(folder: Path, name: str, rows: int | None, threads: int) -> Work:
    """The rows of a data set with their attributes."""
    rows = min(rows or DATA[name], DATA[name])
    held_out = min(POOL, rows // 4)
    if name in real_vectors.SETS:
        rows = min(rows, len(real_vectors.load(folder, name)) - held_out)
        vectors = vectors_of(folder, name, rows + held_out, SEED)
    else:
        vectors = real_vectors.synthetic(rows + held_out, 128, SEED)
    base, pool = real_vectors.split_queries(vectors, held_out, SEED)
    base = np.ascontiguousarray(base)
    kept = machine.CACHE / "filtered_search" / _digest(base, pool)
    kept.mkdir(parents=True, exist_ok=True)
    os.utime(kept)
    rng = np.random.default_rng(SEED)
    if name == "squash":
        return Work(base, pool, {each: rng.random(rows) for each in FOUR}, np.arange(held_out), kept, threads)
    columns = {"label": _labels(rows, rng), "status": np.full(rows, "live")}
    columns["code"] = np.array([f"c{number:03}" for number in range(CODES)])[rng.integers(CODES, size=rows)]
    columns["day"] = FIRST_DAY + rng.integers(DAYS, size=rows)
    columns["price"] = rng.integers(PRICES, size=rows)
    columns |= {each: rng.random(rows) for each in FOUR}
    columns["apart"], region = _apart(base, pool, rng)
    return Work(base, pool, columns, region, kept, threads)


def _digest(*arrays: Array) -> str:
    digest = hashlib.blake2b(str(SEED).encode(), digest_size=8)
    for each in arrays:
        digest.update(str(each.shape).encode())
        digest.update(each.data)
    return digest.hexdigest()


def _labels(rows: int, rng: np.random.Generator) -> Array:
    """A value named after its share for each of the smaller selectivities, which is exact; the rest has one more."""
    counts = {f"share {percent:g}": round(rows * percent / 100) for percent in PERCENTS if percent <= 50}
    counts["rest"] = rows - sum(counts.values())
    return rng.permutation(np.repeat(list(counts), list(counts.values())))


def _apart(base: Array, pool: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Rows numbered by how far their cell lies from a cell of middling size, and queries in the order of distance."""
    sample = base[rng.choice(len(base), min(len(base), 20_000), replace=False)]
    centres = sample[:CELLS].copy()
    for _ in range(10):
        of = _cells(sample, centres)
        sums = np.zeros_like(centres)
        np.add.at(sums, of, sample)
        counts = np.bincount(of, minlength=len(centres))
        centres[counts > 0] = sums[counts > 0] / counts[counts > 0, None]
    of = _cells(base, centres)
    sizes = np.bincount(of, minlength=len(centres))
    middle = centres[np.argsort(sizes)[len(sizes) // 2]]
    far = np.square(centres - middle).sum(axis=1)
    numbers = np.empty(len(base), np.int64)
    numbers[np.lexsort((rng.random(len(base)), far[of]))] = np.arange(len(base))
    return numbers, np.argsort(np.square(pool - middle).sum(axis=1), kind="stable")


def _cells(vectors: Array, centres: Array) -> Array:
    half = np.square(centres).sum(axis=1) / 2
    parts = (vectors[start : start + 16_384] for start in range(0, len(vectors), 16_384))
    return np.concatenate([(part @ centres.T - half).argmax(axis=1) for part in parts])


# --- predicates ------------------------------------------------------------------------------------------------------


def named(data: str) -> list[tuple[str, str, float]]:
    """The points of a data set: name, kind and percent."""
    if data == "squash":
        return [("squash", "squash", 100 * SQUASH_SHARE)]
    all_of = [(f"{kind}-{percent:g}", kind, float(percent)) for kind in KINDS for percent in PERCENTS]
    # where every row passes, an attribute can't be correlated
    return [each for each in all_of if each[2] < 100 or each[1] not in {"positive", "negative"}]


def point_of(work: Work, name: str, kind: str, percent: float, count: int) -> Point:
    """The queries of a point, their predicates and their true neighbours, computed once."""
    rng = np.random.default_rng([SEED, *name.encode()])
    chosen = work.region if kind in {"positive", "negative"} else np.arange(len(work.pool))
    queries = np.ascontiguousarray(work.pool[chosen[:count]])
    if kind == "squash":
        patterns = [tuple(rng.choice(["<", ">", "between"], len(FOUR)).tolist()) for _ in range(SQUASH_TEXTS)]
        predicates = [_four(SQUASH_SHARE, patterns[rng.integers(SQUASH_TEXTS)], rng) for _ in queries]
    else:
        predicates = [predicate_of(work, kind, percent / 100, rng)] * len(queries)
    truth, matches = _truth(work, queries, predicates, work.folder / f"truth-{name}-{_said(predicates, count)}.npz")
    return Point(name, kind, percent, queries, predicates, truth, matches, kind == "squash")


def _said(predicates: list[Predicate], count: int) -> str:
    clauses = repr((count, list(dict.fromkeys(predicates))))
    return hashlib.blake2b(clauses.encode(), digest_size=6).hexdigest()


def _truth(work: Work, queries: Array, predicates: list[Predicate], path: Path) -> tuple[Array, float]:
    """The true neighbours among the rows that pass, by comparing with all of these; and how many pass in the mean."""
    if path.exists():
        with np.load(path) as kept:
            return kept["truth"], float(kept["matches"])
    parts, counts = [], []
    for start in range(0, len(queries), 100):
        some = predicates[start : start + 100]
        rows = {each: np.flatnonzero(each.mask(work.columns)) for each in dict.fromkeys(some)}
        members = [rows[each] for each in some]  # one array object a predicate: its queries are compared together
        parts.append(real_vectors.ground_truth(work.base, queries[start : start + 100], K, members)[0])
        counts += map(len, members)
    truth, matches = np.concatenate(parts), float(np.mean(counts))
    np.savez(path, truth=truth, matches=matches)
    return truth, matches


def predicate_of(work: Work, kind: str, share: float, rng: np.random.Generator) -> Predicate:
    """A predicate of this kind that so large a share of the rows passes."""
    rows = len(work.base)
    match kind:
        case "label":
            return Predicate((_label(share),))
        case "range":
            return Predicate(_between(work.columns["price"], "price", share, rng))
        case "in":
            chosen = rng.choice(CODES, round(share * CODES), replace=False)
            return Predicate((Clause("code", "IN", tuple(f"c{number:03}" for number in sorted(chosen.tolist()))),))
        case "four":
            return _four(share, ("<", ">", "between", "<"), rng)
        case "label+range":
            of_label = 1.0 if share == 1 else next(each for each in (0.1, 0.3, 0.5) if each >= min(share**0.5, 0.5))
            days = max(1, round(DAYS * share / of_label))
            first = FIRST_DAY + int(rng.integers(DAYS - days + 1))
            low, high = first.item(), (first + days).item()
            return Predicate((_label(of_label), Clause("day", ">=", low), Clause("day", "<", high)))
        case "positive":
            return Predicate((Clause("apart", "<", round(share * rows)),))
        case "negative":
            return Predicate((Clause("apart", ">=", rows - round(share * rows)),))
    raise ValueError(kind)


def _label(share: float) -> Clause:
    return Clause("status", "=", "live") if share == 1 else Clause("label", "=", f"share {share * 100:g}")


def _between(values: Array, column: str, share: float, rng: np.random.Generator) -> tuple[Clause, Clause]:
    """A range of the values that holds so large a share of the rows."""
    ordered = np.sort(values)
    count = max(1, round(share * len(values)))
    first = int(rng.integers(len(values) - count + 1))
    high = int(ordered[first + count]) if first + count < len(values) else int(ordered[-1]) + 1
    return Clause(column, ">=", int(ordered[first])), Clause(column, "<", high)


def _four(share: float, pattern: tuple[str, ...], rng: np.random.Generator) -> Predicate:
    """A clause on each of four uniform attributes; their shares differ a little, so that every parameter does."""
    weights = rng.uniform(0.8, 1.2, len(FOUR))
    clauses: list[Clause] = []
    for column, operator, weight in zip(FOUR, pattern, (weights / weights.sum()).tolist(), strict=True):
        width = share**weight
        if operator == "between":
            low = float(rng.uniform(0, 1 - width))
            clauses += [Clause(column, ">=", low), Clause(column, "<", low + width)]
        else:
            clauses.append(Clause(column, operator, width if operator == "<" else 1 - width))
    return Predicate(tuple(clauses))


# --- what is kept ----------------------------------------------------------------------------------------------------


def kept_or_made(
    path: Path, make: Callable[[], Any], write: Callable[[Any, str], Any], read: Callable[[str], Any]
) -> tuple[Any, float]:
    """What ``make`` makes, read from ``path`` where it was made before; and the seconds that making it took."""
    seconds = path.with_name(path.name + ".seconds")
    if seconds.exists():
        return read(str(path)), float(seconds.read_text())
    with machine.Stopwatch() as watch:
        made = make()
    write(made, str(path))
    seconds.write_text(f"{watch.seconds:.3f}")
    _make_room(path.parent)
    return made, watch.seconds


def _make_room(folder: Path) -> None:
    """Remove what is kept of other data, that of the longest ago first, where all of it is too much."""

    def size(of: Path) -> int:
        return sum(file.stat().st_size for file in of.rglob("*") if file.is_file())

    others = sorted(
        (each for each in folder.parent.iterdir() if each != folder and each.is_dir()),
        key=lambda each: each.stat().st_mtime,
    )
    total = size(folder.parent)
    for each in others:
        if total <= MOST_BYTES:
            return
        total -= size(each)
        shutil.rmtree(each)
