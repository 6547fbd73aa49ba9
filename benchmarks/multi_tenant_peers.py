"""The systems that ``multi_tenant.py`` compares: lakelet's index and what else one would take in its place.

All of them search squared Euclidean distances over the same rows, in this process, with one thread. A package that is
not installed is left out, and :func:`chosen` says so. Numbers of threads are the caller's to set in the environment,
before NumPy is imported.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import machine
import numpy as np
from lakelet.vector.index import VectorIndex
from machine import Stopwatch
from multi_tenant_work import Array, System, Work

M, EF_CONSTRUCTION = 16, 100
"""Of every graph here."""
EACH_BYTES = 65_536 * 40
"""What an index of hnswlib takes for the locks of its labels, however few rows it has; its file does not show it."""
NOTHING = np.empty(0, np.int64)


class Lakelet(System):
    """The index that this benchmark is about; its setting None is the default."""

    name, label, shared = "lakelet", "lakelet", False
    sweep, knob = (None, 25, 50, 100, 200, 400, 800), "ef"

    def assign(self, work: Work, members: list[Array]) -> None:
        self._index = VectorIndex(work.base.shape[1], threads=work.threads)
        self._index.add(work.base, tenants=work.lists())
        self._index.wait()

    def use(self, setting: Any) -> None:
        self._ef = setting

    def search(self, query: Array, tenant: int, k: int) -> Array:
        return self._index.search(query, k, tenant, ef=self._ef)[0][0]

    def nbytes(self) -> int:
        return self._index.memory()["total"]

    def wants(self, work: Work) -> int:
        return 3 * work.base.nbytes

    def release(self) -> None:
        del self._index


class Flat(System):
    """Each tenant's vectors copied side by side, and all of them compared by one BLAS product: exact."""

    name, label, package, shared = "flat", "flat scan, a copy a tenant", "numpy", False

    def assign(self, work: Work, members: list[Array]) -> None:
        self._rows = np.concatenate(members)
        self._starts = np.cumsum([0, *map(len, members)]).tolist()
        self._vectors = work.base[self._rows]
        self._half = np.einsum("ij,ij->i", self._vectors, self._vectors) / 2

    def search(self, query: Array, tenant: int, k: int) -> Array:
        part = slice(self._starts[tenant], self._starts[tenant + 1])
        scores = self._half[part] - self._vectors[part] @ query
        if len(scores) > k:
            best = np.argpartition(scores, k)[:k]
            best = best[np.argsort(scores[best])]
        else:
            best = np.argsort(scores)
        return self._rows[part][best]

    def nbytes(self) -> int:
        return self._rows.nbytes + self._vectors.nbytes + self._half.nbytes

    def wants(self, work: Work) -> int:
        return len(work.labels) * (4 * work.base.shape[1] + 12)

    def release(self) -> None:
        del self._rows, self._vectors, self._half


class _EachTenant(System):
    """An index of its own for every tenant; bytes are those of the files, less than what stands in memory.

    Graphs over the same rows are the same, and take an hour: they are kept under ``.cache`` and read again.
    """

    shared = False
    sweep, knob = (10, 20, 40, 80, 160, 320, 640), "ef"

    def assign(self, work: Work, members: list[Array]) -> None:
        self._indexes: list[Any] = [None] * len(members)
        self._counts = [len(rows) for rows in members]
        largest_first = np.argsort([-count for count in self._counts], kind="stable").tolist()
        folder = machine.CACHE / "graphs" / self._digest(work)
        done = folder / "done.json"
        kept = done.exists()

        def one(tenant: int) -> None:
            path = folder / f"{tenant}.index"
            if kept:
                self._indexes[tenant] = self._read(path, work.base.shape[1])
            else:
                self._indexes[tenant] = self._built(work.base[members[tenant]], members[tenant])
                self._write(self._indexes[tenant], path)

        folder.mkdir(parents=True, exist_ok=True)
        with Stopwatch() as watch, ThreadPoolExecutor(work.threads) as pool:
            list(pool.map(one, largest_first))
        if not kept:
            done.write_text(json.dumps(watch.seconds))
        self.kept_seconds = json.loads(done.read_text()) if kept else None

    def _digest(self, work: Work) -> str:
        """Of all that decides what the graphs are like."""
        settings = f"{self.name} {importlib.metadata.version(self.package)} {M} {EF_CONSTRUCTION} {work.base.shape}"
        digest = hashlib.blake2b(settings.encode(), digest_size=8)
        for part in (work.base, work.offsets, work.labels):
            digest.update(part.data)
        return f"{self.name}-{digest.hexdigest()}"

    def _built(self, vectors: Array, ids: Array) -> Any:
        raise NotImplementedError

    def _write(self, index: Any, path: Path) -> None:
        raise NotImplementedError

    def _read(self, path: Path, dim: int) -> Any:
        raise NotImplementedError

    def wants(self, work: Work) -> int:
        return len(work.labels) * (4 * work.base.shape[1] + 300) + work.tenants * EACH_BYTES

    def release(self) -> None:
        del self._indexes


class HnswEach(_EachTenant):
    """hnswlib."""

    name, label, package = "hnswlib", "hnswlib, an index a tenant", "hnswlib"

    def _built(self, vectors: Array, ids: Array) -> Any:
        return new_hnsw(vectors, ids, threads=1)

    def _write(self, index: Any, path: Path) -> None:
        index.save_index(str(path))

    def _read(self, path: Path, dim: int) -> Any:
        import hnswlib

        index = hnswlib.Index("l2", dim)
        index.load_index(str(path))
        index.set_num_threads(1)
        return index

    def use(self, setting: Any) -> None:
        for index in self._indexes:
            index.set_ef(setting)

    def search(self, query: Array, tenant: int, k: int) -> Array:
        found, _ = self._indexes[tenant].knn_query(query, min(k, self._counts[tenant]), num_threads=1)
        return found[0]

    def nbytes(self) -> int:
        return sum(index.index_file_size() for index in self._indexes)


class UsearchEach(_EachTenant):
    """usearch; its Python face has no predicate, so a shared index could not be filtered."""

    name, label, package = "usearch", "usearch, an index a tenant", "usearch"

    def _built(self, vectors: Array, ids: Array) -> Any:
        index = self._empty(vectors.shape[1])
        index.add(ids, vectors, threads=1)
        return index

    def _empty(self, dim: int) -> Any:
        from usearch.index import Index

        return Index(ndim=dim, metric="l2sq", dtype="f32", connectivity=M, expansion_add=EF_CONSTRUCTION)

    def _write(self, index: Any, path: Path) -> None:
        index.save(str(path))

    def _read(self, path: Path, dim: int) -> Any:
        index = self._empty(dim)
        index.load(str(path))
        return index

    def use(self, setting: Any) -> None:
        for index in self._indexes:
            index.expansion_search = setting

    def search(self, query: Array, tenant: int, k: int) -> Array:
        return self._indexes[tenant].search(query, k, threads=1).keys

    def nbytes(self) -> int:
        return sum(index.serialized_length for index in self._indexes)


class _Faiss(System):
    """An index of faiss, and a bitmap of the rows of each tenant; both are counted."""

    package, native = "faiss", True

    def build(self, base: Array, threads: int) -> None:
        import faiss

        self._faiss = faiss
        faiss.omp_set_num_threads(threads)
        self._index = self._built(base)
        faiss.omp_set_num_threads(1)
        writer = faiss.VectorIOWriter()  # its bytes are let go of at once
        faiss.write_index(self._index, writer)
        self._bytes = writer.data.size()

    def _built(self, base: Array) -> Any:
        raise NotImplementedError

    def assign(self, work: Work, members: list[Array]) -> None:
        self._selectors, self._bitmaps = [], 0
        mask = np.zeros(len(work.base), bool)
        for rows in members:
            mask[rows] = True
            bits = np.packbits(mask, bitorder="little")
            mask[rows] = False
            self._selectors.append(self._faiss.IDSelectorBitmap(bits))
            self._bitmaps += bits.nbytes

    def use(self, setting: Any) -> None:
        self._parameters = [self._with(selector, setting) for selector in self._selectors]

    def _with(self, selector: Any, setting: Any) -> Any:
        raise NotImplementedError

    def search(self, query: Array, tenant: int, k: int) -> Array:
        return self._index.search(query[None], k, params=self._parameters[tenant])[1][0]

    def nbytes(self) -> int:
        return self._bytes + self._bitmaps

    def release(self) -> None:
        self._parameters = self._selectors = []


class FaissIvf(_Faiss):
    """An inverted file over raw vectors, with about four times the root of the rows as lists."""

    name, label = "faiss-ivf", "faiss IVF flat, shared, bitmap"
    sweep, knob = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1 << 20), "nprobe"

    def _built(self, base: Array) -> Any:
        lists = max(1, round(4 * len(base) ** 0.5))
        self._quantizer = self._faiss.IndexFlatL2(base.shape[1])
        index = self._faiss.IndexIVFFlat(self._quantizer, base.shape[1], lists)
        index.train(base)
        index.add(base)
        return index

    def _with(self, selector: Any, setting: Any) -> Any:
        return self._faiss.SearchParametersIVF(sel=selector, nprobe=min(setting, self._index.nlist))


class FaissHnsw(_Faiss):
    """A graph over all rows, whose results are filtered."""

    name, label = "faiss-hnsw", "faiss HNSW, shared, bitmap"
    sweep, knob = (16, 64, 256, 1024, 4096, 16384), "efSearch"

    def _built(self, base: Array) -> Any:
        index = self._faiss.IndexHNSWFlat(base.shape[1], M)
        index.hnsw.efConstruction = EF_CONSTRUCTION
        index.add(base)
        return index

    def _with(self, selector: Any, setting: Any) -> Any:
        return self._faiss.SearchParametersHNSW(sel=selector, efSearch=setting)


class HnswFiltered(System):
    """One graph of hnswlib whose filter is a Python function: a call a row, so this is no yardstick."""

    name, label, package = "hnswlib-filter", "hnswlib, shared, Python filter", "hnswlib"
    sweep, knob, few = (64, 512, 4096), "ef", 40

    def build(self, base: Array, threads: int) -> None:
        self._index = new_hnsw(base, np.arange(len(base)), threads=threads)

    def assign(self, work: Work, members: list[Array]) -> None:
        self._members = members
        self._seen: dict[int, Any] = {}

    def use(self, setting: Any) -> None:
        self._index.set_ef(setting)

    def search(self, query: Array, tenant: int, k: int) -> Array:
        if tenant not in self._seen:
            self._seen[tenant] = frozenset(self._members[tenant].tolist()).__contains__
        try:
            count = min(k, len(self._members[tenant]))
            return self._index.knn_query(query, count, num_threads=1, filter=self._seen[tenant])[0][0]
        except RuntimeError:  # fewer rows than asked for were met
            return NOTHING

    def nbytes(self) -> int:
        return self._index.index_file_size()

    def release(self) -> None:
        self._seen = {}


class Lance(System):
    """LanceDB with IVF_FLAT and a LABEL_LIST index, filtered before the search; its bytes are those of its files."""

    name, label, package, shared = "lancedb", "LanceDB IVF flat, prefilter", "lancedb", False
    sweep, knob, few = (16, 64, 256, 1024), "nprobes", 40

    def assign(self, work: Work, members: list[Array]) -> None:
        import lancedb
        import pyarrow as pa
        from lancedb.index import IvfFlat, LabelList

        self._folder = Path(tempfile.mkdtemp(prefix="multi-tenant-lance-"))
        dim, rows = work.base.shape[1], len(work.base)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(work.base.ravel()), dim)
        tenants = pa.ListArray.from_arrays(
            pa.array(work.offsets.astype(np.int32)), pa.array(work.labels.astype(np.int64))
        )
        columns = {"id": np.arange(rows), "vector": vectors, "tenants": tenants}
        self._table = lancedb.connect(self._folder).create_table("rows", pa.table(columns))
        self._table.create_index("vector", config=IvfFlat(distance_type="l2", num_partitions=round(4 * rows**0.5)))
        self._table.create_index("tenants", config=LabelList())

    def use(self, setting: Any) -> None:
        self._nprobes = setting

    def search(self, query: Array, tenant: int, k: int) -> Array:
        found = self._table.search(query).where(f"array_has_any(tenants, [{tenant}])", prefilter=True)
        return found.nprobes(self._nprobes).limit(k).select(["id", "_distance"]).to_arrow()["id"].to_numpy()

    def nbytes(self) -> int:
        return sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())

    def release(self) -> None:
        del self._table
        shutil.rmtree(self._folder, ignore_errors=True)


SYSTEMS = (Lakelet, HnswEach, Flat, FaissIvf, FaissHnsw, HnswFiltered, Lance, UsearchEach)
NAMES = tuple(system.name for system in SYSTEMS)
USUAL = tuple(name for name in NAMES if name != "usearch")
"""usearch asks for the time and the memory of hnswlib once more, so it is compared when it is named."""


def chosen(names: list[str]) -> tuple[list[System], list[str]]:
    """The systems of these names, lakelet always among them; and what is to be said about those left out."""
    systems: list[System] = []
    missing = []
    for kind in SYSTEMS:
        if kind.name not in names and kind is not Lakelet:
            continue
        if importlib.util.find_spec(kind.package) is None:
            missing.append(f"{kind.label}: the package {kind.package} is not installed")
        else:
            systems.append(kind())
    return systems, missing


def new_hnsw(vectors: Array, ids: Array, *, threads: int, room: int | None = None) -> Any:
    """An hnswlib index of these rows, with room for as many or for more."""
    import hnswlib

    index = hnswlib.Index("l2", vectors.shape[1])
    index.init_index(room or len(vectors), M=M, ef_construction=EF_CONSTRUCTION)
    index.set_num_threads(threads)
    index.add_items(vectors, ids, num_threads=threads)
    return index
