"""What does it cost to change a lakelet index that many tenants share, and what do searches lose by it?

    python benchmarks/multi_tenant_updates.py FOLDER [--set text256] [--rows 400000] [--tenants 1000] [--sharing 5]
        [--load 200000] [--only bulk single load churn peers]

- bulk: seconds for all rows in one call, with their grants.
- single: microseconds to add a row with all its grants, one a call and in batches of 1,000; to revoke, grant, delete.
  The caller's processor time is judged, for it hardly changes when others use the machine; the time that passes stands
  beside it, with what merges in the background and other programs take.
- load: the latency of other tenants' searches while one tenant loads rows, by a second thread, beside that of an idle
  index; in one call, and in batches of 1,000. An index that builds with one thread leaves a core to the searches.
- churn: recall once 30 % of the rows are deleted and as many others added, beside an index built of the same rows.
- peers: the same operations where hnswlib and faiss IVF have them, in one shared index that knows no tenants; and
  hnswlib with an index a tenant, where a row costs an insertion for each of its grants: the mean over some tenants,
  drawn in proportion to their grants, times the grants of a row.

Tenants are clustered, as in ``multi_tenant.py``. Writes results/multi_tenant_updates.md and .png; leaves with 1 when a
target is missed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import machine
import numpy as np
import real_vectors
from lakelet.vector.index import VectorIndex
from machine import Stopwatch, markdown_table
from multi_tenant_peers import new_hnsw
from multi_tenant_work import Array, Work, parser_of, vectors_of

SEED = 20_240_613
K = 10
BATCH, BATCHES, SINGLES = 1000, 30, 5000
CHURN = 0.3
LIMITS = {"add": 30.0, "batch": 8.0, "revoke": 15.0, "delete": 15.0, "bulk": 30.0, "load": 2.0, "churn": 0.005}
PARTS = ("bulk", "single", "load", "churn", "peers")
Row = tuple[object, ...]


def each(work: Callable[[Any], object], over: Sequence[Any]) -> tuple[Array, float]:
    """Microseconds of each call, and of the processor time of this thread in the mean."""
    took = np.empty(len(over))
    own = time.thread_time_ns()
    for i, one in enumerate(over):
        start = time.perf_counter_ns()
        work(one)
        took[i] = time.perf_counter_ns() - start
    return took / 1000, (time.thread_time_ns() - own) / 1000 / max(1, len(over))


class Bench:
    """The rows and tenants of all parts, and the verdicts so far."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        spare = max(round(given.rows * CHURN), SINGLES + BATCH * BATCHES, given.load)
        total = given.rows + spare + 1000
        vectors = vectors_of(given.folder, given.set, total, SEED)
        vectors, self.queries = real_vectors.split_queries(vectors, 1000, SEED)
        tenancy = real_vectors.zipf_tenants(len(vectors), given.tenants, given.sharing, SEED, True, vectors)
        self.all = Work(np.ascontiguousarray(vectors), *tenancy, given.tenants, given.threads)
        self.lists = self.all.lists()
        self.vectors, self.rows = self.all.base, given.rows
        rng = np.random.default_rng(SEED)
        self.drawn = rng.choice(given.tenants, len(self.queries), p=self.all.sizes / self.all.sizes.sum()).tolist()
        self.verdicts: list[tuple[str, str, str, str]] = []

    def index(self, rows: int, threads: int | None = None) -> VectorIndex:
        index = VectorIndex(self.vectors.shape[1], threads=threads or self.given.threads)
        index.add(self.vectors[:rows], tenants=self.lists[:rows])
        index.wait()
        return index

    def judge(self, what: str, figure: float, key: str, unit: str) -> None:
        met = figure <= LIMITS[key]
        self.verdicts.append((what, f"{figure:.3g} {unit}", f"<= {LIMITS[key]:g} {unit}", "yes" if met else "**no**"))
        print(f"{what}: {figure:.3g} {unit}", flush=True)

    # The parts

    def bulk(self) -> list[str]:
        with Stopwatch() as watch:
            self.index(self.rows)
        what = f"bulk load of {self.rows:,} rows, {self.given.threads} threads"
        self.judge(what, watch.seconds, "bulk", "s")
        return [f"Bulk load: {watch.seconds:.1f} s, {watch.cpu_seconds:.1f} s of processor time."]

    def single(self) -> list[str]:
        index, rows = self.index(self.rows), []
        first = self.rows

        def add(row: int) -> None:
            index.add(self.vectors[row], tenants=[self.lists[row]])

        def add_batch(start: int) -> None:
            index.add(self.vectors[start : start + BATCH], tenants=self.lists[start : start + BATCH])

        def note(what: str, figures: tuple[Array, float], of: int = 1, key: str = "") -> None:
            took, own = figures[0] / of, figures[1] / of
            rows.append((what, own, took.mean(), np.median(took), np.percentile(took, 99), len(took)))
            if key:
                self.judge(f"{what}, mean processor time of the caller", own, key, "µs")

        add(first)
        note("add a row with its grants", each(add, range(first + 1, first + SINGLES)), 1, "add")
        starts = range(first + SINGLES, first + SINGLES + BATCH * BATCHES, BATCH)
        note("add rows by 1,000, a row", each(add_batch, starts), BATCH, "batch")
        rng = np.random.default_rng(SEED)
        some = rng.choice(self.rows, 2 * SINGLES, replace=False).tolist()
        pairs = [(row, self.lists[row][0]) for row in some[:SINGLES]]
        note("revoke a row from a tenant", each(lambda pair: index.revoke(pair[0], pair[1]), pairs), 1, "revoke")
        note("grant it again", each(lambda pair: index.grant(pair[0], pair[1]), pairs))
        note("delete a row", each(index.delete, some[SINGLES:]), 1, "delete")
        with Stopwatch() as watch:
            index.wait()
        columns = ("operation", "processor µs of the caller", "mean µs", "median", "p99", "calls")
        return [
            f"Over {self.rows:,} rows of {self.given.sharing:g} tenants in the mean:\n\n{markdown_table(columns, rows)}"
            f"\n\nMerges in the background ended {watch.seconds:.1f} s later."
        ]

    def search_all(self, index: VectorIndex) -> tuple[Array, Array]:
        """The ids found for every query; microseconds of each, (2, queries): as passed, and of processor time."""
        found, took = [], np.empty((2, len(self.queries)))
        for i, tenant in enumerate(self.drawn):
            start, own = time.perf_counter_ns(), time.thread_time_ns()
            ids, _ = index.search(self.queries[i], K, tenant)
            took[:, i] = time.perf_counter_ns() - start, time.thread_time_ns() - own
            found.append(ids[0])
        return np.array(found), took / 1000

    def load(self) -> list[str]:
        rows, self.series = [], []
        for threads in sorted({1, self.given.threads}):
            index = self.index(self.rows, threads)
            self.search_all(index)
            idle = np.concatenate([self.search_all(index)[1] for _ in range(5)], axis=1)
            usual = np.percentile(idle, 99, axis=1)
            rows.append((f"idle, {threads} threads", idle[0].mean(), *usual, 1.0, 1.0, len(idle[0]), ""))
            for batch in (self.given.load, BATCH):
                part = self.vectors[self.rows : self.rows + self.given.load]

                def fill(index: VectorIndex = index, part: Array = part, batch: int = batch) -> None:
                    for start in range(0, len(part), batch):
                        index.add(part[start : start + batch], tenants="the one that loads")
                    index.wait()

                writer = threading.Thread(target=fill)
                with Stopwatch() as watch:
                    writer.start()
                    busy = []
                    while writer.is_alive():
                        busy.append(self.search_all(index)[1])
                took = np.concatenate(busy, axis=1)
                high = np.percentile(took, 99, axis=1)
                what = "in one call" if batch == self.given.load else f"by {batch:,}"
                what = f"loading {self.given.load:,} {what}, {threads} threads"
                rows.append((what, took[0].mean(), *high, *(high / usual), len(took[0]), watch.seconds))
                self.judge(f"p99 of others over idle, {what}", float(high[0] / usual[0]), "load", "x")
                self.series.append((what, took[0]))
                index.drop_tenant("the one that loads")
                index.wait()
                self.search_all(index)
        columns = ("searches of other tenants", "mean µs", "p99", "p99 of processor time", "p99 over idle")
        columns += ("processor time over idle", "searches", "load took s")
        return [f"Threads are those that the index builds with.\n\n{markdown_table(columns, rows)}"]

    def churn(self) -> list[str]:
        count = round(self.rows * CHURN)
        rng = np.random.default_rng(SEED)
        gone = rng.choice(self.rows, count, replace=False)
        index = self.index(self.rows)
        with Stopwatch() as watch:
            for start in range(0, count, BATCH):
                stop = min(start + BATCH, count)
                index.delete(gone[start:stop])
                here = slice(self.rows + start, self.rows + stop)
                index.add(self.vectors[here], tenants=self.lists[here])
            index.wait()
        alive = np.ones(self.rows + count, bool)
        alive[gone] = False
        kept = np.flatnonzero(alive)
        fresh = VectorIndex(self.vectors.shape[1], threads=self.given.threads)
        fresh.add(self.vectors[kept], ids=kept, tenants=[self.lists[row] for row in kept.tolist()])
        everyone = self.all.members()
        members = [rows[rows < len(alive)] for rows in everyone]
        members = [rows[alive[rows]] for rows in members]
        among = [members[tenant] for tenant in self.drawn]
        truth, _ = real_vectors.ground_truth(self.vectors, self.queries, K, among)
        rows = []
        for what, one in (("churned", index), ("fresh", fresh)):
            found, _ = self.search_all(one)
            (took, _) = self.search_all(one)[1]
            hits = [np.isin(true[true >= 0], got) for true, got in zip(truth, found, strict=True)]
            recall = float(np.mean([hit.mean() for hit in hits if len(hit)]))
            rows.append((what, recall, took.mean(), np.percentile(took, 99), one.memory()["total"] / 2**20))
        self.judge("recall lost by churn", float(rows[1][1] - rows[0][1]), "churn", "")
        columns = ("index", "recall@10", "mean µs", "p99", "MiB")
        return [
            f"{count:,} of {self.rows:,} rows deleted and as many others added by {BATCH:,}, in {watch.seconds:.1f} s, "
            f"the last merge included:\n\n{markdown_table(columns, rows)}"
        ]

    def peers(self) -> list[str]:
        rows: list[Row] = []
        if importlib.util.find_spec("hnswlib"):
            rows += self._hnswlib()
        else:
            rows.append(("hnswlib is not installed", "", ""))
        rows += self._faiss() if importlib.util.find_spec("faiss") else [("faiss is not installed", "", "")]
        return ["Peers:\n\n" + markdown_table(("operation", "mean µs", "calls"), rows)]

    def _hnswlib(self) -> list[Row]:
        given, rows = self.given, []
        new = range(self.rows, self.rows + 1000)
        index = new_hnsw(self.vectors[: self.rows], np.arange(self.rows), threads=given.threads, room=len(self.vectors))
        took, _ = each(lambda row: index.add_items(self.vectors[row], row, num_threads=1), new)
        rows.append(("hnswlib, shared: add a row, no grants", took.mean(), len(took)))
        took, _ = each(index.mark_deleted, range(1000))
        rows.append(("hnswlib, shared: mark a row deleted", took.mean(), len(took)))
        del index
        rng = np.random.default_rng(SEED + 1)
        members, sizes = self.all.members(), self.all.sizes
        drawn, often = np.unique(
            rng.choice(given.tenants, given.hnsw_tenants, p=sizes / sizes.sum()), return_counts=True
        )
        total, marked = 0.0, 0.0
        for tenant, times in zip(drawn.tolist(), often.tolist(), strict=True):
            own = members[tenant][members[tenant] < self.rows]
            if not len(own):
                continue
            index = new_hnsw(self.vectors[own], own, threads=given.threads, room=len(own) + 200)
            took, _ = each(lambda row, index=index: index.add_items(self.vectors[row], row, num_threads=1), new[:200])
            total += times * took.mean()
            marked += times * each(index.mark_deleted, own[: min(200, len(own))].tolist())[0].mean()
        grants = len(self.all.labels) / len(self.vectors)
        mean, marked = total / given.hnsw_tenants, marked / given.hnsw_tenants
        what = f"hnswlib, an index a tenant: add a row with its {grants:.1f} grants ({mean:.0f} µs a grant)"
        rows.append((what, mean * grants, 200 * len(drawn)))
        rows.append(("hnswlib, an index a tenant: revoke, as mark deleted", marked, 200 * len(drawn)))
        return rows

    def _faiss(self) -> list[Row]:
        import faiss

        rows: list[Row] = []
        faiss.omp_set_num_threads(self.given.threads)
        quantizer = faiss.IndexFlatL2(self.vectors.shape[1])
        index = faiss.IndexIVFFlat(quantizer, self.vectors.shape[1], round(4 * self.rows**0.5))
        index.train(self.vectors[: self.rows])
        index.add(self.vectors[: self.rows])
        faiss.omp_set_num_threads(1)
        new = range(self.rows, self.rows + 1000)
        took, _ = each(lambda row: index.add(self.vectors[row : row + 1]), new)
        rows.append(("faiss IVF, shared: add a row, no grants", took.mean(), len(took)))
        starts = range(self.rows + 1000, self.rows + 6000, BATCH)
        took, _ = each(lambda row: index.add(self.vectors[row : row + BATCH]), starts)
        rows.append(("faiss IVF, shared: add rows by 1,000, a row, no grants", took.mean() / BATCH, len(took)))
        took, _ = each(lambda row: index.remove_ids(np.array([row])), range(20))
        rows.append(("faiss IVF, shared: remove a row", took.mean(), len(took)))
        return rows


def draw(bench: Bench, path: Path) -> None:
    """The latency of others in the course of a load, as shares of searches that took longer."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no picture: matplotlib is not installed")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for what, took in bench.series:
        axes.plot(np.sort(took), 1 - np.arange(len(took)) / len(took), label=what)
    axes.set(xscale="log", yscale="log", xlabel="µs", ylabel="share of searches that take longer")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Measure, print, write the results."""
    parser = parser_of(__doc__)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--sharing", type=float, default=5)
    parser.add_argument("--load", type=int, default=200_000)
    parser.add_argument("--hnsw-tenants", type=int, default=12, help="tenants drawn for hnswlib with an index a tenant")
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS)
    given = parser.parse_args()
    bench, sections = Bench(given), []
    VectorIndex(bench.vectors.shape[1]).add(bench.vectors[:10_000])  # compiles
    command = f"python benchmarks/multi_tenant_updates.py FOLDER --set {given.set} --rows {given.rows}"
    command += (
        f" --tenants {given.tenants} --sharing {given.sharing:g} --load {given.load} --only {' '.join(given.only)}"
    )
    facts = machine.describe(seed=SEED, threads=given.threads)
    for part in given.only:
        sections += getattr(bench, part)()
        print(sections[-1], flush=True)
        asked = markdown_table(("asked for", "measured", "target", "met"), bench.verdicts)
        if not given.no_results:
            title = "Changing an index of many tenants"
            print("written:", machine.write_results("multi_tenant_updates", title, command, [asked, *sections], facts))
            if part == "load":
                draw(bench, machine.RESULTS / "multi_tenant_updates.png")
    print(asked)
    return 0 if all(met == "yes" for *_, met in bench.verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
