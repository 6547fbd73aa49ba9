"""The graph after any history of edits is the graph of a full run, and a retired table is a table like any other."""

from __future__ import annotations

import tempfile
from typing import Any

import lakelet
import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lakelet.containment.finder import find
from lakelet.containment.retirement import plan_retirement

NAMES = ("a", "b", "c", "d", "e")
name = st.sampled_from(NAMES)
numbers = st.lists(st.integers(0, 12), max_size=12)


def rows(values: list[int], wide: bool) -> pa.Table:
    columns = {"n": pa.array(values, pa.int64()), "half": pa.array([v / 2 for v in values], pa.float64())}
    return pa.table(columns if wide else {"n": columns["n"]})


class Edits(RuleBasedStateMachine):
    """Edits of a small lake; ``model`` holds the rows of each table, in order."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.db = lakelet.connect(self.folder.name)
        self.model: dict[str, pa.Table] = {}

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()
            self.folder.cleanup()

    @rule(name=name, values=numbers, wide=st.booleans())
    def overwrite(self, name: str, values: list[int], wide: bool) -> None:
        self.db.write(name, rows(values, wide), mode="overwrite", dependants="restore")
        self.model[name] = rows(values, wide)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), values=numbers)
    def append(self, data: Any, values: list[int]) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        more = rows(values, "half" in self.model[name].column_names)
        self.db.write(name, more, mode="append")
        self.model[name] = pa.concat_tables([self.model[name], more])

    @precondition(lambda self: self.model)
    @rule(data=st.data(), below=st.integers(0, 13))
    def delete(self, data: Any, below: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.db.delete(name, where="n < $below", params={"below": below})
        self.model[name] = self.model[name].filter(pa.compute.field("n") >= below)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), part=st.integers(0, 3))
    def copy(self, data: Any, part: int) -> None:
        source = data.draw(st.sampled_from(sorted(self.model)))
        target = data.draw(name)
        made = self.model[source].filter(pa.compute.field("n") >= part)
        self.db.write(target, made, mode="overwrite", dependants="restore")
        self.model[target] = made

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def drop(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.db.drop(name, dependants="restore")
        del self.model[name]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def optimize(self, data: Any) -> None:
        self.db.optimize(data.draw(st.sampled_from(sorted(self.model))))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def restore(self, data: Any) -> None:
        self.db.restore(data.draw(st.sampled_from(sorted(self.model))))

    @rule(data=st.data())
    def retire(self, data: Any) -> None:
        kinds = {name: info.kind for name, info in self.db.tables().items()}
        pairs = [
            (edge["child"], edge["parent"])
            for edge in self.db.containment().edges.to_pylist()
            if kinds[edge["parent"]] == "owned" and self.model[edge["child"]].num_rows
        ]
        if pairs:
            snapshot = self.db._catalog.log.latest()
            found = plan_retirement(
                snapshot,
                self.db._catalog.store,
                self.db.table,
                [data.draw(st.sampled_from(pairs))],
                memory_bytes=2**24,
                must_pay=False,
            )
            self.db._commit(found.edit, "retire", snapshot)

    @invariant()
    def the_graph_is_that_of_a_full_run(self) -> None:
        if not hasattr(self, "db"):
            return
        snapshot = self.db._catalog.log.latest()
        full = find([self.db.table(name) for name in self.model], seed=bytes.fromhex(snapshot.hash_seed), verdicts=None)
        assert _but_for_proof(self.db.containment(), full)

    @invariant()
    def tables_hold_what_was_written(self) -> None:
        if hasattr(self, "db"):
            assert set(self.db.tables()) == set(self.model)
            for name, expected in self.model.items():
                assert self.db.table(name).to_arrow().equals(expected), name


def _but_for_proof(one: Any, two: Any) -> bool:
    """What was compared directly depends on what came first."""
    return bool(one.edges.drop_columns(["proof"]).equals(two.edges.drop_columns(["proof"])))


TestEdits = Edits.TestCase
TestEdits.settings = settings(
    max_examples=40, stateful_step_count=14, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
