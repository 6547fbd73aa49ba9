"""How fast, how well and in how much memory does one index serve many tenants, beside what one would take in its place?

    python benchmarks/multi_tenant.py FOLDER [--set text256] [--rows 400000] [--tenants 1000] [--sharing 1 5 12]
        [--kinds clustered random] [--queries 2000] [--rounds 5] [--peers hnswlib flat ...] [--resume]

FOLDER holds what ``real_vectors.py`` prepared. Tenants see numbers of rows by Zipf's law; ``--sharing`` is how many see
a row in the mean, and in the kind "clustered" nine tenths of a tenant's rows lie about three centres. Queries are rows
that no index holds, each with a tenant drawn in proportion to its rows; one call a query, k = 10, one thread. Recall is
of the true neighbours among the tenant's rows, of as many as it has where these are fewer than k.

Each system goes through its settings, the fastest first, until it finds 0.99. Then all of them take turns, some queries
each, round by round, so that what else happens on the machine hits all. A query's latency is its median over the
rounds; means and percentiles are of these. What a preempted thread waits for so falls away, what makes a query slow by
itself does not; the p99 within a round, both together, stands beside. A setting that takes long gets fewer of the
queries, the first ones.

Writes results/multi_tenant_<set>.md and .png, anew after each kind and sharing, and what it measured as JSON under
``.cache``, from which ``--resume`` takes what is there; leaves with 1 when a target is missed. hnswlib with 12 tenants
to each of 400,000 rows of 256 takes half an hour and 6 GB to build on two cores, once: graphs of a tenant each are kept
under ``.cache`` too. Name ``--peers`` to do without.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
os.environ.update({"LANCE_CPU_THREADS": "1", "LANCE_LOG": "error", "RUST_LOG": "error"})

import machine
import multi_tenant_report as report
import numpy as np
import real_vectors
from machine import Stopwatch
from multi_tenant_peers import NAMES, USUAL, Lakelet, chosen
from multi_tenant_work import Array, System, Work, parser_of, vectors_of

K = 10
SEED = 20_240_612
ENOUGH = 0.99
"""A sweep ends with the setting that finds so much."""
CHUNK, WARM = 250, 20
"""Queries of one turn, and those before it that are not timed."""
SWEEP_SECONDS, ROUND_SECONDS, FEWEST = 15.0, 1.5, 40
TENANT_QUERIES, BUCKET_QUERIES = 5, 300
SPARE_BYTES = 2 << 30


@dataclass(frozen=True)
class Load:
    """Queries, the tenant of each, and the true neighbours, -1 where there are fewer."""

    queries: list[Array]
    tenants: list[int]
    truth: Array

    def recall(self, at: int, found: Array) -> float:
        true = self.truth[at]
        true = true[true >= 0]
        return len(np.intersect1d(true, found)) / len(true)


def load_of(work: Work, members: list[Array], held_out: Array, tenants: Array, seed: int) -> Load:
    """A query for each of ``tenants``, drawn from the rows that were held out once these were all taken."""
    rng = np.random.default_rng(seed)
    taken = np.concatenate([rng.permutation(len(held_out)) for _ in range(-(-len(tenants) // len(held_out)))])
    queries = np.ascontiguousarray(held_out[taken[: len(tenants)]])
    named = tenants.tolist()
    truth, _ = real_vectors.ground_truth(work.base, queries, K, [members[tenant] for tenant in named])
    return Load(list(queries), named, truth)


# --- measuring -------------------------------------------------------------------------------------------------------


def timed(system: System, load: Load, at: range) -> list[int]:
    """Nanoseconds of each of these queries, after some that are not timed."""
    search, queries, tenants, clock = system.search, load.queries, load.tenants, time.perf_counter_ns
    for i in range(at.start - min(WARM, len(at) // 4), at.start):
        search(queries[i], tenants[i], K)
    took = []
    for i in at:
        start = clock()
        search(queries[i], tenants[i], K)
        took.append(clock() - start)
    return took


def sweep(system: System, load: Load) -> list[dict[str, Any]]:
    """The recall of each setting, until one finds enough; of lakelet all of them."""
    points = []
    for setting in system.sweep:
        system.use(setting)
        recalls, took = [], 0
        for i in range(min(len(load.queries), system.few or len(load.queries))):
            start = time.perf_counter_ns()
            found = system.search(load.queries[i], load.tenants[i], K)
            took += time.perf_counter_ns() - start
            recalls.append(load.recall(i, found))
            if took > SWEEP_SECONDS * 1e9 and i >= FEWEST:
                break
        recall = float(np.mean(recalls))
        name = "default" if setting is None else str(setting)
        points.append({"system": system.name, "setting": setting, "name": name, "recall": recall})
        points[-1] |= {"recall_queries": len(recalls), "mean": took / len(recalls) / 1000}
        print(f"    {system.name} {name}: recall {recall:.4f}, {points[-1]['mean']:.0f} µs", flush=True)
        if recall >= ENOUGH and not isinstance(system, Lakelet):
            break
    return points


def take_turns(entries: list[tuple[System, dict[str, Any]]], load: Load, rounds: int, seconds: float) -> list[Array]:
    """Nanoseconds of each entry: (rounds, queries), the first queries as far as the seconds of a round go."""
    counts = []
    for system, point in entries:
        fit = max(FEWEST, int(seconds * 1e6 / point["mean"]))
        counts.append(min(fit, system.few or fit, len(load.queries)))
    took: list[list[list[int]]] = [[[] for _ in range(rounds)] for _ in entries]
    gc.collect()
    gc.disable()
    for turn in range(rounds):
        for start in range(0, max(counts), CHUNK):
            for place in range(len(entries)):
                one = (place + turn) % len(entries)
                at = range(start, min(start + CHUNK, counts[one]))
                if at:
                    entries[one][0].use(entries[one][1]["setting"])
                    took[one][turn] += timed(entries[one][0], load, at)
    gc.enable()
    return [np.array(each) for each in took]


def note_times(points: list[dict[str, Any]], took: list[Array]) -> None:
    """Put the figures into the points, in microseconds: of the medians of each query over the rounds."""
    for point, each in zip(points, took, strict=True):
        micro = each / 1000
        typical = np.median(micro, axis=0)
        point |= {"queries": each.shape[1], "mean": float(typical.mean())}
        point |= {f"p{share}": float(np.percentile(typical, share)) for share in (50, 99)}
        point["met_p99"] = float(np.median(np.percentile(micro, 99, axis=1)))
        point["rounds"] = [round(mean, 1) for mean in micro.mean(axis=1).tolist()]


def every_tenant(system: System, work: Work, members: list[Array], held_out: Array) -> dict[str, float]:
    """Recall of lakelet tenant by tenant, all of them alike, and what the first search of each took."""
    tenants = np.tile(np.random.default_rng(SEED).permutation(work.tenants), TENANT_QUERIES)
    load = load_of(work, members, held_out, tenants, SEED + 1)
    system.use(None)
    recalls, first = [], []
    for i, (query, tenant) in enumerate(zip(load.queries, load.tenants, strict=True)):
        start = time.perf_counter_ns()
        found = system.search(query, tenant, K)
        first.append((time.perf_counter_ns() - start) / 1000)
        recalls.append(load.recall(i, found))
    of_tenant = np.array(recalls).reshape(TENANT_QUERIES, -1).mean(axis=0)
    opening = np.array(first[: work.tenants])
    return {
        "p1_recall": float(np.percentile(of_tenant, 1)),
        "least_recall": float(of_tenant.min()),
        "tenant_recall": float(of_tenant.mean()),
        "first_mean": float(opening.mean()),
        "first_max": float(opening.max()),
    }


def by_size(
    entries: list[tuple[System, dict[str, Any]]], work: Work, members: list[Array], held_out: Array, rounds: int
) -> list[dict[str, Any]]:
    """Mean latency of some systems for tenants of like sizes, and lakelet's recall."""
    rng, found = np.random.default_rng(SEED + 2), []
    for low, high in report.BUCKETS:
        there = np.flatnonzero((work.sizes >= low) & (work.sizes < high))
        if not len(there):
            continue
        load = load_of(work, members, held_out, rng.choice(there, BUCKET_QUERIES), SEED + 3)
        took = take_turns(entries, load, rounds, 3 * ROUND_SECONDS)
        bucket: dict[str, Any] = {"low": low, "high": high, "tenants": len(there)}
        for (system, _), each in zip(entries, took, strict=True):
            bucket[system.name] = float(np.median(each, axis=0).mean()) / 1000
            if isinstance(system, Lakelet):
                system.use(None)
                some = range(len(load.queries))
                got = [load.recall(i, system.search(load.queries[i], load.tenants[i], K)) for i in some]
                bucket["recall"] = float(np.mean(got))
        print(f"    {bucket}", flush=True)
        found.append(bucket)
    return found


# --- one kind and sharing --------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory that this process has, once what it let go of was given back."""
    gc.collect()
    if sys.platform != "linux":
        return 0
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def available() -> int:
    if sys.platform != "linux":
        return 1 << 62
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024


def compare(
    systems: list[System], built: dict[str, tuple[float, int]], work: Work, held_out: Array, given: argparse.Namespace
) -> dict[str, Any]:
    """All that is asked of the systems, over these tenants. ``built``: seconds and bytes of what all tenants share."""
    members = work.members()
    rng = np.random.default_rng(SEED)
    drawn = rng.choice(work.tenants, given.queries, p=work.sizes / work.sizes.sum())
    load = load_of(work, members, held_out, drawn, SEED)
    ready, facts, left_out = [], {}, []
    for system in systems:
        if system.wants(work) + SPARE_BYTES > available():
            left_out.append(f"{system.label}: wants {system.wants(work) / 2**30:.1f} GiB more than there is to spare")
            continue
        before = resident()
        try:
            with Stopwatch() as watch:
                system.assign(work, members)
        except Exception as failure:  # a peer that fails is named and left out, for what was measured takes hours
            if isinstance(system, Lakelet):
                raise
            left_out.append(f"{system.label}: failed with {failure!r}")
            continue
        seconds, nbytes = built.get(system.name, (0.0, 0))
        facts[system.name] = {"label": system.label, "native": system.native, "knob": system.knob}
        facts[system.name] |= {"shared": system.shared, "seconds": seconds + (system.kept_seconds or watch.seconds)}
        facts[system.name]["resident"] = nbytes + resident() - before
        print(f"  {system.name}: ready after {watch.seconds:.1f} s", flush=True)
        ready.append(system)
    tenants = every_tenant(ready[0], work, members, held_out)
    points = [(system, point) for system in ready for point in sweep(system, load)]
    note_times([point for _, point in points], take_turns(points, load, given.rounds, ROUND_SECONDS))
    best = {system.name: report.reaching([p for s, p in points if s is system], 0.95) for system in ready}
    entries = [(system, best[system.name] or {}) for system in ready if not system.shared and system.few is None]
    entries = [(system, point) for system, point in entries if point]
    entries[0] = (ready[0], next(point for system, point in points if point["setting"] is None))
    buckets = by_size(entries, work, members, held_out, given.rounds)
    for system in ready:
        facts[system.name]["bytes"] = system.nbytes()
        system.release()
    sizes = np.sort(work.sizes)
    return {
        "facts": facts,
        "points": [point for _, point in points],
        "buckets": buckets,
        "tenants": tenants,
        "left_out": left_out,
        "rows": len(work.base),
        "raw": work.base.nbytes,
        "sizes": [int(sizes[0]), int(np.median(sizes)), int(sizes[-1])],
        "memory": facts["lakelet"]["bytes"],
    }


def data_of(given: argparse.Namespace) -> tuple[Array, Array]:
    """The rows to search and those held out for queries."""
    held_out = max(1000, given.queries)
    vectors = vectors_of(given.folder, given.set, given.rows + held_out, SEED)
    base, queries = real_vectors.split_queries(vectors, held_out, SEED)
    return np.ascontiguousarray(base), queries


def run(given: argparse.Namespace) -> int:
    systems, missing = chosen(given.peers)
    command = (
        f"python benchmarks/multi_tenant.py FOLDER --set {given.set} --rows {given.rows} --tenants {given.tenants}"
    )
    command += f" --sharing {' '.join(f'{s:g}' for s in given.sharing)} --kinds {' '.join(given.kinds)}"
    command += f" --queries {given.queries} --rounds {given.rounds} --peers {' '.join(given.peers)}"
    command += " --resume" if given.resume else ""
    about = {"set": given.set, "rows": given.rows, "tenants": given.tenants, "queries": given.queries}
    commands = [command]
    kept = machine.CACHE / f"multi_tenant_{given.set}.json"
    found: dict[str, Any] = {}
    if given.resume and kept.exists():
        read = json.loads(kept.read_text())
        if read["about"] == about:
            found, commands = read["found"], [*read["commands"], command]
    base, held_out = data_of(given)
    built: dict[str, tuple[float, int]] = {}
    facts = machine.describe(seed=SEED, threads=1) | {"building": f"{given.threads} threads, BLAS on 1"}
    facts["data"] = f"{given.set}, {len(base):,} rows of {base.shape[1]}, {given.tenants:,} tenants"
    facts["peers"] = report.versions(systems)

    def publish() -> None:
        if not given.no_results and found:
            name = f"multi_tenant_{given.set}"
            sections = report.sections(found, missing, f"{name}.png")
            title = f"One index for many tenants: {given.set}"
            print("written:", machine.write_results(name, title, "; ".join(commands), sections, facts), flush=True)
            report.draw(found, machine.RESULTS / f"{name}.png")

    publish()
    for kind in given.kinds:
        for sharing in given.sharing:
            key = f"{kind}, {sharing:g} tenants a row"
            if key in found:
                continue
            print(key, flush=True)
            tenancy = real_vectors.zipf_tenants(len(base), given.tenants, sharing, SEED, kind == "clustered", base)
            for system in systems:
                if system.name not in built:
                    before = resident()
                    with Stopwatch() as watch:
                        system.build(base, given.threads)
                    built[system.name] = (watch.seconds, resident() - before)
            work = Work(base, *tenancy, given.tenants, given.threads)
            found[key] = compare(systems, built, work, held_out, given) | {"sharing": sharing}
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps({"about": about, "commands": commands, "found": found}))
            publish()
    print("\n\n".join(report.sections(found, missing, "")))
    return 0 if report.all_met(found) else 1


def main() -> int:
    """Measure, print, write the results."""
    parser = parser_of(__doc__)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--sharing", type=float, nargs="+", default=[1, 5, 12])
    parser.add_argument("--kinds", nargs="+", default=["clustered", "random"], choices=("clustered", "random"))
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=USUAL, choices=NAMES)
    parser.add_argument("--resume", action="store_true", help="take over what an earlier run measured")
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
