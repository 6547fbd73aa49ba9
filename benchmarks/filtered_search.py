"""How fast, how well and in how much memory is a search filtered by attributes, beside what one would take instead?

    python benchmarks/filtered_search.py FOLDER [--data text256] [--rows N] [--queries 200] [--points label range-3]
        [--peers lakelet hnswlib ...] [--seconds 0.8] [--rounds 5] [--resume] [--no-results]

FOLDER holds what ``real_vectors.py`` prepared; the data sets "synthetic1m" and "squash" are made from a seed. A point
is a kind of predicate and the share of the rows that pass it: a label; a range of integers; a list of values; a
conjunction of four ranges; a label and a range of days; and, "positive" and "negative", a range of an attribute that
follows how far cells of the vectors lie from one region, where the queries come from that region, and the rows pass
that lie nearest to it, or farthest from it. In "squash" every query has a predicate of its own: four ranges that 8 % of
the rows pass together; there lakelet has no graph.

One query a call, k = 10, one thread. At each point every system tries settings until it finds 0.95 of the true
neighbours, lakelet its default first. Then all of them take turns, some queries each, round by round, so that what else
happens on the machine hits all; a query's latency is its median over the rounds. Slow systems get fewer of the queries.
Except in "squash", systems that filter by masks are given them for free.

Every answer of lakelet's is checked: no row that fails, none twice, exactly min(k, matches) of them. Writes
results/filtered_search_<data>.md and .png, anew after each point, and what it measured as JSON under ``.cache``, from
which ``--resume`` takes what is there; indexes of peers and true answers are kept there too. Leaves with 1 when a
target is missed. Name ``--peers`` to compare fewer; lakelet is one of the names.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
os.environ.update({"LANCE_CPU_THREADS": "1", "LANCE_LOG": "error", "RUST_LOG": "error"})

import filtered_search_report as report
import filtered_search_work as tasks
import machine
import numpy as np
import real_vectors
from filtered_search_peers import NAMES, Lakelet, System, chosen
from filtered_search_work import DATA, KINDS, SEED, Array, K, Point, Predicate, Work
from multi_tenant_report import versions

if TYPE_CHECKING:
    from collections.abc import Iterable

ENOUGH = report.RECALL
TRIAL_SECONDS, TRIAL_FEWEST = 0.4, 30
SLOW_SECONDS, SLOW_FEWEST = 2.0, 5
"""A trial of a setting ends after so long, once it has so many queries; one that takes long, with fewer."""
HOPELESS_SECONDS = 0.25
"""Where a query takes so long at a setting that does not find enough, no slower one is tried."""
ROUND_FEWEST = 3
UNTIMED = 2
"""Queries before each trial."""
WARM = 10
"""Queries of each turn that are not timed."""
Ask = Callable[[int], Array]
Guesses = dict[tuple[Any, ...], int]
"""The places in ladders that were settled on last, by system and number of the ladder, and by percent too."""


class Entry:
    """A system at a point, or one way of it: what it is asked by, and what it answered."""

    def __init__(self, system: System, name: str, ask: Ask, point: Point) -> None:
        self.system, self.name, self.ask, self.point = system, name, ask, point
        self.setting: Any = None
        self.mean = float("inf")
        """Seconds, as tried."""
        self.recalls: dict[int, float] = {}
        """By query, of the setting."""

    def tried(self, setting: Any) -> bool:
        """Whether the setting finds enough."""
        self.setting, self.recalls, took = setting, {}, 0.0
        self.system.use(setting)
        for i in range(UNTIMED):
            self.ask(i)
        for i in range(len(self.point.queries)):
            start = time.perf_counter()
            found = self.ask(i)
            took += time.perf_counter() - start
            self.recalls[i] = self.point.recall(i, found)
            if (took > TRIAL_SECONDS and i + 1 >= TRIAL_FEWEST) or (took > SLOW_SECONDS and i + 1 >= SLOW_FEWEST):
                break
        self.mean = took / len(self.recalls)
        return self.recall >= ENOUGH

    @property
    def recall(self) -> float:
        return float(np.mean(list(self.recalls.values())))


def asked(system: System, point: Point, work: Work) -> Ask:
    """The search of query i, with its filter: made beforehand, unless the point charges for masks."""
    queries, predicates, columns = point.queries, point.predicates, work.columns
    if point.charged and system.masked:

        def ask(i: int) -> Array:
            filtered = system.prepared(predicates[i], predicates[i].mask(columns))
            return system.search(queries[i], filtered, K)

        return ask
    made = {each: system.prepared(each, each.mask(columns) if system.masked else None) for each in set(predicates)}
    filters = [made[each] for each in predicates]
    return lambda i: system.search(queries[i], filters[i], K)


def settle(entry: Entry, ladder: tuple[Any, ...], guess: int) -> int | None:
    """Leave the entry at the first setting of the ladder that finds enough, searched for from a guess; its place."""
    failing, reaching, step, at = -1, len(ladder), 1, min(guess, len(ladder) - 1)
    tried: dict[int, tuple[float, dict[int, float]]] = {}
    while reaching - failing > 1:
        if entry.tried(ladder[at]):
            reaching = at
        else:
            failing = len(ladder) - 1 if entry.mean > HOPELESS_SECONDS else at
        tried[at] = entry.mean, entry.recalls
        if failing < 0:
            at = max(0, reaching - step)
        elif reaching == len(ladder):
            at = min(len(ladder) - 1, failing + step)
        else:
            at = (failing + reaching) // 2
        step *= 2
    at = reaching if reaching in tried else max(tried)
    entry.setting, (entry.mean, entry.recalls) = ladder[at], tried[at]
    return at if reaching < len(ladder) else None


def settled(entry: Entry, guesses: Guesses) -> None:
    """Leave the entry at the quickest setting that finds enough, over all ladders, or at what finds the most."""
    ends = []
    for number, ladder in enumerate(entry.system.ladders):
        last, same = (entry.system.name, number), (entry.system.name, number, entry.point.percent)
        guess = 0 if isinstance(entry.system, Lakelet) else guesses.get(same, guesses.get(last, 0))
        at = settle(entry, ladder, guess)
        guesses[last] = guesses[same] = guess if at is None else at
        ends.append((entry.recall < ENOUGH, entry.mean, entry.setting, entry.recalls))
    if all(failed for failed, *_ in ends):
        _, entry.mean, entry.setting, entry.recalls = max(ends, key=lambda end: np.mean(list(end[3].values())))
    else:
        _, entry.mean, entry.setting, entry.recalls = min(ends, key=lambda end: end[:2])


def take_turns(entries: list[Entry], rounds: int, seconds: float) -> tuple[list[Array], list[list[list[Array]]]]:
    """Nanoseconds of each entry, (rounds, queries), and its answers by round and query."""
    took: list[list[list[int]]] = [[] for _ in entries]
    answers: list[list[list[Array]]] = [[] for _ in entries]
    clock = time.perf_counter_ns
    gc.collect()
    gc.disable()
    for turn in range(rounds):
        for place in range(len(entries)):
            one = (place + turn) % len(entries)
            entry = entries[one]
            count = max(ROUND_FEWEST, min(len(entry.point.queries), int(seconds / rounds / entry.mean)))
            count = min(count, len(entry.point.queries))
            entry.system.use(entry.setting)
            for i in range(min(WARM, count // 4)):
                entry.ask(i)
            times, found = [], []
            for i in range(count):
                start = clock()
                answer = entry.ask(i)
                times.append(clock() - start)
                found.append(answer)
            took[one].append(times)
            answers[one].append(found)
    gc.enable()
    return [np.array(each) for each in took], answers


def violations(point: Point, work: Work, answers: Iterable[list[Array]]) -> dict[str, int]:
    """How many answers were checked; rows that fail or are there twice; answers that are not min(k, matches) rows."""
    found = {"checked": 0, "wrong": 0, "short": 0}
    for each in answers:
        for i, answer in enumerate(each):
            rows = answer[answer >= 0]
            failing = len(rows) - int(point.predicates[i].mask(work.columns, rows).sum())
            found["wrong"] += failing + len(rows) - len(np.unique(rows))
            found["short"] += len(rows) != int((point.truth[i] >= 0).sum())
            found["checked"] += 1
    return found


def measured(
    systems: list[System], point: Point, work: Work, given: argparse.Namespace, guesses: Guesses
) -> dict[str, Any]:
    """The figures of every system at a point."""
    entries, paths = [], []
    for system in systems:
        if point.charged and not system.charged:
            continue
        entry = Entry(system, system.name, asked(system, point, work), point)
        settled(entry, guesses)
        entries.append(entry)
        if isinstance(system, Lakelet) and system.graph:
            paths = single_paths(system, point)
    took, answers = take_turns([*entries, *paths], given.rounds, given.seconds)
    found: dict[str, Any] = {"kind": point.kind, "percent": point.percent, "matches": point.matches}
    found |= {"systems": {}, "paths": {}, "lakelet": {}}
    for entry, times, each in zip([*entries, *paths], took, answers, strict=True):
        for i, answer in enumerate(each[0]):
            entry.recalls[i] = point.recall(i, answer)
        figures = {"setting": entry.setting, "recall": entry.recall, "queries": times.shape[1]}
        figures["qps"] = 1e9 / float(np.median(times, axis=0).mean())
        figures["p99"] = float(np.percentile(np.median(times, axis=0), 99)) / 1000
        figures["rounds"] = [round(1e9 / mean, 1) for mean in times.mean(axis=1).tolist()]
        found["paths" if entry in paths else "systems"][entry.name] = figures
        if entry.name == Lakelet.name and isinstance(entry.system, Lakelet):
            some: list[Predicate] = list(dict.fromkeys(point.predicates))[:20]
            ways = [way for predicate in some for way in entry.system.ways(predicate, K)]
            found["lakelet"] = {"ways": list(dict.fromkeys(ways))} | violations(point, work, each)
        said = f"{figures['qps']:,.0f}/s, recall {entry.recall:.3f} at {entry.setting}, {times.shape[1]} queries"
        print(f"    {entry.name}: {said}", flush=True)
    return found


def single_paths(system: Lakelet, point: Point) -> list[Entry]:
    """An entry for each way that the index can be made to take at a point with one predicate."""
    if point.charged:
        return []
    entries = []
    for name, search in system.single_paths(point.predicates[0], K).items():
        entry = Entry(system, name, lambda i, search=search: search(point.queries[i]), point)
        entry.tried(None)
        entries.append(entry)
    return entries


def run(given: argparse.Namespace) -> int:
    systems, missing = chosen(given.peers)
    if given.data == "squash":
        systems = [each for each in systems if each.name != "lakelet-tree"]
        for each in systems:
            if isinstance(each, Lakelet):
                each.graph = False
    points = [each for each in tasks.named(given.data) if wanted(each, given.points)]
    kept = machine.CACHE / "filtered_search" / f"{given.data}.json"
    about = {"data": given.data, "rows": given.rows, "queries": given.queries, "peers": list(given.peers)}
    found: dict[str, Any] = {"points": {}, "facts": {}, "commands": []}
    if given.resume and kept.exists():
        read = json.loads(kept.read_text())
        found = read["found"] if read["about"] == about else found
    found["commands"].append(command_of(given))
    work = tasks.work_of(given.folder, given.data, given.rows, given.threads)
    found["rows"], found["raw"] = len(work.base), work.base.nbytes
    facts = machine.describe(seed=SEED, threads=1) | {"building": f"{given.threads} threads"}
    facts["data"] = f"{given.data}, {len(work.base):,} rows of {work.base.shape[1]}; {given.queries} queries a point"
    facts["peers"] = versions(systems)
    ready: list[System] = []
    for system in systems:
        try:
            with machine.Stopwatch() as watch:
                system.build(work)
        except Exception as failure:  # a peer that fails is named and left out, for what was measured takes long
            if isinstance(system, Lakelet):
                raise
            missing.append(f"{system.label}: failed with {failure!r}")
            continue
        ready.append(system)
        sizes = {name: int(size) for name, size in system.nbytes().items() if isinstance(size, int | np.integer)}
        about_it = {"label": system.label, "knob": system.knob, "yardstick": system.yardstick, "bytes": sizes}
        found["facts"][system.name] = about_it | {"seconds": system.seconds or watch.seconds}
        print(f"{system.name}: ready after {watch.seconds:.1f} s", flush=True)
    guesses: Guesses = {}
    for name, kind, percent in points:
        if name in found["points"]:
            continue
        point = tasks.point_of(work, name, kind, percent, given.queries)
        print(f"{name}: {point.matches:,.0f} rows pass", flush=True)
        with machine.Stopwatch() as watch:
            found["points"][name] = measured(ready, point, work, given, guesses)
        print(f"    {watch.seconds:.1f} s", flush=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"about": about, "found": found}))
        if not given.no_results:
            publish(found, missing, facts, given)
    print("\n\n".join(report.sections(found, missing, "")))
    return 0 if report.all_met(found) else 1


def publish(found: dict[str, Any], missing: list[str], facts: dict[str, str], given: argparse.Namespace) -> None:
    name = f"filtered_search_{given.data}"
    sections = report.sections(found, missing, f"{name}.png")
    title = f"Search filtered by attributes: {given.data}"
    machine.write_results(name, title, "; ".join(found["commands"]), sections, facts)
    report.draw(found, machine.RESULTS / f"{name}.png")


def wanted(named: tuple[str, str, float], points: list[str]) -> bool:
    name, kind, percent = named
    return not points or bool({name, kind, f"{percent:g}"} & set(points))


def command_of(given: argparse.Namespace) -> str:
    command = f"python benchmarks/filtered_search.py FOLDER --data {given.data} --queries {given.queries}"
    command += f" --seconds {given.seconds:g} --rounds {given.rounds}" + (f" --rows {given.rows}" if given.rows else "")
    command += f" --points {' '.join(given.points)}" if given.points else ""
    command += f" --peers {' '.join(given.peers)}" if tuple(given.peers) != NAMES else ""
    return command + (" --resume" if given.resume else "")


def main() -> int:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=real_vectors.DEFAULT_FOLDER)
    parser.add_argument("--data", default="text256", choices=DATA)
    parser.add_argument("--rows", type=int, help="as many rows at most")
    parser.add_argument("--queries", type=int, help="a point; 200, and 1,000 of squash, unless said")
    parser.add_argument(
        "--points", nargs="*", default=[], help=f"names as range-3, or kinds ({', '.join(KINDS)}), or %%"
    )
    parser.add_argument("--peers", nargs="*", default=NAMES, choices=NAMES)
    parser.add_argument("--seconds", type=float, default=0.8, help="of each system at each point, all rounds together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="for building")
    parser.add_argument("--resume", action="store_true", help="take over what an earlier run measured")
    parser.add_argument("--no-results", action="store_true", help="print alone")
    given = parser.parse_args()
    given.queries = given.queries or (1_000 if given.data == "squash" else 200)
    return run(given)


if __name__ == "__main__":
    sys.exit(main())
