"""The systems that ``filtered_search.py`` compares: lakelet's index and what else one would filter a search with.

All of them search squared Euclidean distances over the same rows, in this process, with one thread. A package that is
not installed is left out, and :func:`chosen` says so. Numbers of threads are the caller's to set in the environment,
before NumPy is imported.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import lakelet.vector.search as search_module
import numpy as np
from filtered_search_work import TYPES, Array, Predicate, Work, kept_or_made
from lakelet.vector import planner
from multi_tenant_peers import new_hnsw

if TYPE_CHECKING:
    from collections.abc import Callable

LISTS = 2
"""Inverted files have so many times the root of the rows as lists: of 1, 2 and 4 the fastest on text256."""
NOTHING = np.empty(0, np.int64)
PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 1 << 20)
BLOCK = 1_024
"""Rows that a scan gathers at a time: they stay in the cache."""
USEARCH = "usearch: its Python binding takes no predicate, neither in `search` nor in the compiled `search_many`"


class System:
    """One way to search; what the names below mean, a subclass says in figures."""

    name: ClassVar[str]
    label: ClassVar[str]
    package: ClassVar[str]
    ladders: ClassVar[tuple[tuple[Any, ...], ...]] = ((None,),)
    """Settings to try: in each ladder every next one takes longer and finds more."""
    knob: ClassVar[str] = ""
    masked: ClassVar[bool] = True
    """Filters by a mask, and does not know attributes."""
    yardstick: ClassVar[bool] = True
    """False: shown, and not compared with."""
    charged: ClassVar[bool] = True
    """Takes part where each query has a predicate of its own."""
    seconds: float = 0.0
    """What building took, or had taken when what was built then is read."""

    def build(self, work: Work) -> None:
        """Take the rows."""

    def prepared(self, predicate: Predicate, mask: Array | None) -> Any:
        """What :meth:`search` takes as the filter; ``mask`` where this system is ``masked``."""
        raise NotImplementedError

    def use(self, setting: Any) -> None:
        """Search with this setting from now on."""

    def search(self, query: Array, chosen: Any, k: int) -> Array:
        """The ids of the k nearest rows that pass; -1, or fewer, where there are no more."""
        raise NotImplementedError

    def nbytes(self) -> dict[str, int]:
        """Bytes in memory by what they are for, "total" always among them, as the system itself counts them."""
        return {"total": 0}


class Lakelet(System):
    """The index that this benchmark is about, with a graph where one predicate leaves many rows; its setting None is
    the default.
    """

    name, label, package, masked = "lakelet", "lakelet", "lakelet", False
    graph: bool = True
    ladders, knob = ((None, 50, 100, 200, 400, 800, 1600),), "ef"

    def build(self, work: Work) -> None:
        from lakelet.vector.index import VectorIndex

        self._index: Any = VectorIndex(
            work.base.shape[1], metric="l2", attributes=work.types, graph=self.graph, threads=work.threads
        )
        values = {name: column.tolist() if TYPES[name] == "string" else column for name, column in work.columns.items()}
        self._index.add(work.base, attributes=values)
        self._index.wait()

    def prepared(self, predicate: Predicate, mask: Array | None) -> Any:
        return {"where": predicate.text, "params": predicate.parameters}

    def use(self, setting: Any) -> None:
        self._ef = setting

    def search(self, query: Array, chosen: Any, k: int) -> Array:
        return self._index.search(query, k, ef=self._ef, **chosen)[0][0]

    def ways(self, predicate: Predicate, k: int) -> list[str]:
        """The ways that the planner takes for a predicate, each once."""
        steps = self._index.explain(k=k, where=predicate.text, params=predicate.parameters)
        return list(dict.fromkeys(str(getattr(step.way, "value", step.way)) for step in steps))

    def single_paths(self, predicate: Predicate, k: int) -> dict[str, Callable[[Array], Array]]:
        """Searches of the index that are made to take one way each, by the name of the way: the planner is held to
        the quickest of them.
        """
        chosen = self.prepared(predicate, None)

        def only(way: planner.Way) -> Callable[[Array], Array]:
            @lru_cache(64)
            def plan(rows: int, k: int, ef: int | None, exact: bool, *rest: Any) -> planner.Plan:
                there = planner.ways(rows, k, ef, *rest)
                return next((each for each in there if each.way is way), there[0])

            def searched(query: Array) -> Array:
                search_module.choose = plan
                try:
                    return self.search(query, chosen, k)
                finally:
                    search_module.choose = planner.choose

            return searched

        ways = [planner.Way.CODES, planner.Way.TREE, *([planner.Way.GRAPH] if self.graph else [])]
        return {way.value: only(way) for way in ways}

    def nbytes(self) -> dict[str, int]:
        return self._index.memory()


class LakeletTree(Lakelet):
    """The index without a graph: shown beside it."""

    name, label, graph, yardstick = "lakelet-tree", "lakelet without a graph", False, False


class Scan(System):
    """NumPy over the rows that pass: gathered by blocks, or all rows compared where many pass. Exact."""

    name, label, package = "scan", "NumPy scan, rows gathered", "numpy"

    def build(self, work: Work) -> None:
        self._base = work.base
        self._half = np.einsum("ij,ij->i", work.base, work.base) / 2
        self._block = np.empty((BLOCK, work.base.shape[1]), np.float32)

    def prepared(self, predicate: Predicate, mask: Array | None) -> Any:
        return np.flatnonzero(mask)

    def search(self, query: Array, chosen: Any, k: int) -> Array:
        if 2 * len(chosen) > len(self._base):
            scores = (self._base @ query)[chosen]
        else:
            scores = np.empty(len(chosen), np.float32)
            for start in range(0, len(chosen), BLOCK):
                some = chosen[start : start + BLOCK]
                part = np.take(self._base, some, axis=0, out=self._block[: len(some)], mode="clip")
                np.dot(part, query, out=scores[start : start + len(some)])
        return chosen[best(np.subtract(self._half[chosen], scores, out=scores), k)]

    def nbytes(self) -> dict[str, int]:
        return {"total": self._base.nbytes + self._half.nbytes}


class Copies(Scan):
    """NumPy over a copy of the rows of each predicate, made beforehand: what nothing that reads them once can beat."""

    name, label = "copies", "NumPy scan, a copy a predicate"
    yardstick, charged = False, False

    def prepared(self, predicate: Predicate, mask: Array | None) -> Any:
        rows = np.flatnonzero(mask)
        return rows, self._base[rows], self._half[rows]

    def search(self, query: Array, chosen: Any, k: int) -> Array:
        rows, vectors, half = chosen
        return rows[best(half - vectors @ query, k)]


def best(scores: Array, k: int) -> Array:
    """The places of the k least scores, ascending."""
    if len(scores) <= k:
        return np.argsort(scores)
    least = np.argpartition(scores, k)[:k]
    return least[np.argsort(scores[least])]


class Hnsw(System):
    """One graph of hnswlib; its filter is a Python function, a call a row, here the quickest there is."""

    name, label, package = "hnswlib", "hnswlib, Python filter", "hnswlib"
    ladders, knob = (
        ((10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280, 1920, 2560, 3840, 5120),),
        "ef",
    )

    def build(self, work: Work) -> None:
        import hnswlib

        def make() -> Any:
            return new_hnsw(work.base, np.arange(len(work.base)), threads=work.threads)

        def read(path: str) -> Any:
            index = hnswlib.Index("l2", work.base.shape[1])
            index.load_index(path)
            return index

        path = work.folder / "hnswlib.index"
        self._index, self.seconds = kept_or_made(path, make, lambda index, path: index.save_index(path), read)
        self._index.set_num_threads(1)

    def prepared(self, predicate: Predicate, mask: Array | None) -> Any:
        return None if mask is None or mask.all() else mask.tobytes().__getitem__

    def use(self, setting: Any) -> None:
        self._index.set_ef(setting)

    def search(self, query: Array, chosen: Any, k: int) -> Array:
        try:
            return self._index.knn_query(query, k, num_threads=1, filter=chosen)[0][0]
        except RuntimeError:  # fewer rows than asked for were met
            return NOTHING

    def nbytes(self) -> dict[str, int]:
        return {"total": self._index.index_file_size()}


class _Selected:
    """A bitmap as faiss takes it, none where all rows pass, with the parameters of a search by setting."""

    def __init__(self, faiss: Any, mask: Array) -> None:
        self.selector = None if mask.all() else faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        self.parameters: dict[Any, Any] = {}


class _Ivf(System):
    """An inverted file of faiss; all of them have the same lists."""

    package, knob = "faiss", "nprobe"
    ladders = (PROBES,)

    def build(self, work: Work) -> None:
        import faiss

        self._faiss, self._rows = faiss, len(work.base)
        faiss.omp_set_num_threads(work.threads)
        centroids, coarse_seconds = kept_or_made(
            work.folder / "coarse.npy",
            lambda: self._centroids(work.base),
            lambda made, path: np.save(path, made),
            np.load,
        )

        def make() -> Any:
            self._quantizer = faiss.IndexFlatL2(work.base.shape[1])  # the index does not keep it alive
            self._quantizer.add(centroids)
            index = self._empty(self._quantizer, *centroids.shape)
            index.train(work.base)
            index.add(work.base)
            return index

        path = work.folder / f"{self.name}.index"
        self._index, seconds = kept_or_made(path, make, faiss.write_index, faiss.read_index)
        self.seconds, self._bytes = coarse_seconds + seconds, path.stat().st_size
        faiss.omp_set_num_threads(1)

    def _centroids(self, base: Array) -> Array:
        lists = max(1, round(LISTS * len(base) ** 0.5))
        quantizer = self._faiss.IndexFlatL2(base.shape[1])
        self._faiss.IndexIVFFlat(quantizer, base.shape[1], lists).train(base)
        return quantizer.reconstruct_n(0, lists)

    def _empty(self, quantizer: Any, lists: int, dim: int) -> Any:
        raise NotImplementedError

    def prepared(self, predicate: Predicate, mask: Array | None) -> Any:
        return None if mask is None else _Selected(self._faiss, mask)

    def use(self, setting: Any) -> None:
        self._setting = setting

    def search(self, query: Array, chosen: Any, k: int) -> Array:
        parameters = chosen.parameters.get(self._setting)
        if parameters is None:
            parameters = chosen.parameters[self._setting] = self._with(chosen.selector, self._setting)
        return self._index.search(query[None], k, params=parameters)[1][0]

    def _with(self, selector: Any, setting: Any) -> Any:
        return self._faiss.SearchParametersIVF(sel=selector, nprobe=min(setting, self._index.nlist))

    def nbytes(self) -> dict[str, int]:
        return {"total": self._bytes}


class IvfFlat(_Ivf):
    """Over raw vectors."""

    name, label = "ivf-flat", "faiss IVF-Flat, bitmap"

    def _empty(self, quantizer: Any, lists: int, dim: int) -> Any:
        return self._faiss.IndexIVFFlat(quantizer, dim, lists)


class IvfSq8(_Ivf):
    """Over a byte a dimension."""

    name, label = "ivf-sq8", "faiss IVF-SQ8, bitmap"

    def _empty(self, quantizer: Any, lists: int, dim: int) -> Any:
        return self._faiss.IndexIVFScalarQuantizer(quantizer, dim, lists, self._faiss.ScalarQuantizer.QT_8bit)


class IvfPq(_Ivf):
    """Over codes of 4 bits for every four dimensions, the best of them compared exactly."""

    name, label, knob = "ivf-pq", "faiss IVF-PQ fast-scan, bitmap, re-ranked", "nprobe, times k re-ranked"
    ladders = tuple(tuple((probes, times) for probes in PROBES) for times in (10, 30, 100))

    def build(self, work: Work) -> None:
        super().build(work)
        self._codes, self._flat = self._index, self._faiss.IndexFlatL2(work.base.shape[1])
        self._flat.add(work.base)
        self._index = self._faiss.IndexRefine(self._codes, self._flat)
        self._bytes += work.base.nbytes

    def _empty(self, quantizer: Any, lists: int, dim: int) -> Any:
        return self._faiss.IndexIVFPQFastScan(quantizer, dim, lists, dim // 4, 4)

    def _with(self, selector: Any, setting: Any) -> Any:
        probes, times = setting
        inner = self._faiss.SearchParametersIVF(sel=selector, nprobe=min(probes, self._codes.nlist))
        return self._faiss.IndexRefineSearchParameters(k_factor=times, base_index_params=inner)


class Lance(System):
    """LanceDB with IVF_PQ, re-ranked, and an index of each attribute; filtered before the search."""

    name, label, package, masked = "lancedb", "LanceDB IVF-PQ, prefilter, re-ranked", "lancedb", False
    ladders = tuple(tuple((probes, times) for probes in PROBES[5::2]) for times in (10, 30))
    knob = "nprobes, refine_factor"

    def build(self, work: Work) -> None:
        import lancedb

        home = work.folder / f"lance-{len(work.columns)}"

        def make() -> Any:
            return self._table_of(work, lancedb.connect(home))

        def read(_: str) -> Any:
            return lancedb.connect(home).open_table("rows")

        self._table, self.seconds = kept_or_made(home, make, lambda table, path: None, read)
        self._bytes = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())

    def _table_of(self, work: Work, database: Any) -> Any:
        import pyarrow as pa
        from lancedb.index import Bitmap, BTree, IvfPq

        rows, dim = work.base.shape
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(work.base.ravel()), dim)
        columns = {"id": np.arange(rows), "vector": vectors} | {
            name: pa.array(each) for name, each in work.columns.items()
        }
        table = database.create_table("rows", pa.table(columns), mode="overwrite")
        lists = max(1, round(LISTS * rows**0.5))
        table.create_index("vector", config=IvfPq(distance_type="l2", num_partitions=lists, num_sub_vectors=dim // 4))
        for name in work.columns:
            table.create_index(name, config=Bitmap() if TYPES[name] == "string" else BTree())
        return table

    def prepared(self, predicate: Predicate, mask: Array | None) -> Any:
        return predicate.sql

    def use(self, setting: Any) -> None:
        self._probes, self._times = setting

    def search(self, query: Array, chosen: Any, k: int) -> Array:
        found = self._table.search(query).where(chosen, prefilter=True).nprobes(self._probes).refine_factor(self._times)
        return found.limit(k).select(["id", "_distance"]).to_arrow()["id"].to_numpy()

    def nbytes(self) -> dict[str, int]:
        return {"total": self._bytes}


SYSTEMS: tuple[type[System], ...] = (Lakelet, LakeletTree, Scan, Copies, Hnsw, IvfFlat, IvfSq8, IvfPq, Lance)
NAMES = tuple(system.name for system in SYSTEMS)


def chosen(names: list[str]) -> tuple[list[System], list[str]]:
    """The systems of these names, and what is to be said about those left out."""
    systems: list[System] = []
    missing = [USEARCH]
    for kind in SYSTEMS:
        if kind.name not in names:
            continue
        if importlib.util.find_spec(kind.package) is None:
            missing.append(f"{kind.label}: the package {kind.package} is not installed")
        else:
            systems.append(kind())
    return systems, missing
