"""The units of an index, and how they change: rows appended and loaded, deltas merged into segments in the background.

Readers take the tuple ``now`` and go on with it. Writers hold ``lock``; merges take turns under another one.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from ..lake.errors import InvalidInput, NotFound
from ..lake.limits import VECTOR_DELTA_ROWS
from .background import aside, step_back
from .building import Settings, built, mean_of
from .compaction import Unit, Work, chosen, merged, published, started
from .delta import Delta
from .nodes import no_nodes
from .segment import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from .labels import Grants

__all__ = ["Units"]


class Units:
    """Segments and deltas, the one that takes new rows last. Methods that change rows want ``lock`` held."""

    def __init__(self, settings: Settings, now: tuple[Unit, ...] = ()) -> None:
        self.settings, self.now = settings, now
        self.lock = threading.RLock()
        self._merging = threading.Lock()
        self._background: threading.Thread | None = None
        self._failure: BaseException | None = None

    def append(
        self, rows: NDArray[np.float32], ids: NDArray[np.int64], grants: Grants, attributes: pa.Table | None = None
    ) -> None:
        """Add rows to the delta, and to another once it is full."""
        offsets, codes = grants
        done = 0
        while done < len(rows):
            delta = self.now[-1] if self.now else None
            if not isinstance(delta, Delta) or len(delta) == delta.capacity:
                delta = self._new_delta(self.now, rows)
                self.now = (*self.now, delta)
                self.schedule()
            count = min(len(rows) - done, delta.capacity - len(delta))
            at = slice(done, done + count)
            part = offsets[done : done + count + 1] - offsets[done]
            some = None if attributes is None else attributes.slice(done, count)
            delta.append(rows[at], ids[at], (part, codes[offsets[done] : offsets[done + count]]), some)
            done += count

    def build(
        self, rows: NDArray[np.float32], ids: NDArray[np.int64], grants: Grants, attributes: pa.Table | None = None
    ) -> Segment:
        """A segment of a large batch, with codes of its own; for :meth:`place`. Needs no lock."""
        offsets, codes = grants
        pairs = codes, np.repeat(np.arange(len(ids), dtype=np.int64), np.diff(offsets))
        if not self.now:  # nobody searches what is empty
            return built(rows, ids, pairs, self.settings, attributes=attributes)[0]
        return aside(lambda: built(rows, ids, pairs, self.settings, attributes=attributes)[0])

    def place(self, segment: Segment) -> None:
        """Let readers see a segment."""
        self.now = (segment, *self.now)
        self.schedule()

    def refuse_taken(self, ids: NDArray[np.int64]) -> None:
        """InvalidInput if a live row has one of the ids."""
        for unit in self.now:
            taken = ids[unit.find(ids) >= 0]
            if len(taken):
                raise InvalidInput(
                    f"{len(taken):,} of the ids, id {taken[0]} first, are those of live rows; delete these before, or "
                    "leave ids out to get new ones"
                )

    def located(self, wanted: NDArray[np.int64]) -> list[tuple[Unit, NDArray[np.uint32]]]:
        """The rows of ids: ascending positions in each unit that has some. NotFound if any is missing."""
        found: list[tuple[Unit, NDArray[np.uint32]]] = []
        left = wanted
        for unit in self.now:
            if not len(left):
                break
            positions = unit.find(left)
            if len(left) == 1:
                if positions[0] >= 0:
                    return [*found, (unit, positions.astype(np.uint32))]
                continue
            here = positions >= 0
            if here.any():
                found.append((unit, np.sort(positions[here]).astype(np.uint32)))
                left = left[~here]
        if len(left):
            more = f", nor {len(left) - 1:,} others" if len(left) > 1 else ""
            raise NotFound(f"there is no row with id {left[0]}{more}; nothing was changed")
        return found

    # Merging

    def schedule(self) -> None:
        """Start the background thread if there is work and none is running."""
        if self._background is None and chosen(self._settled()):
            self._background = threading.Thread(target=self._merge_all, name="lakelet-compaction", daemon=True)
            self._background.start()

    def optimize(self) -> None:
        """Merge everything into one segment, without rows that were deleted."""
        with self._merging:
            with self.lock:
                units = list(self.now)
                filled = [unit for unit in units if len(unit)]
                if not filled or (len(filled) == 1 and isinstance(filled[0], Segment) and not filled[0].deleted):
                    return
                work = started(units)
                self.now = (*self.now, self._new_delta(units))
            self._replace(work)

    def wait(self) -> None:
        """Wait until no merge is running or due; raise what one failed with."""
        while (thread := self._background) is not None and thread is not threading.current_thread():
            thread.join()
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise what the last merge failed with, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _settled(self) -> tuple[Unit, ...]:
        """The units less the delta that still takes rows."""
        last = self.now[-1] if self.now else None
        return self.now[:-1] if isinstance(last, Delta) and len(last) < last.capacity else self.now

    def _new_delta(self, units: Sequence[Unit], rows: NDArray[np.float32] | None = None) -> Delta:
        """An empty delta, coded about the mean of the largest unit, or of its own first rows."""
        settings = self.settings
        largest = max(units, key=len, default=None)
        mean = np.zeros(settings.dim, np.float32)
        if largest is not None:
            mean = largest.rows.mean
        elif rows is not None:
            mean = mean_of(rows)
        nodes = no_nodes(settings.dim)
        return Delta(VECTOR_DELTA_ROWS, mean, settings.layout, settings.metric, nodes, settings.schema)

    def _merge_all(self) -> None:
        """The background thread: merge until nothing is due. A failure ends it and waits for the next writer."""
        step_back()
        while True:
            with self._merging:
                try:
                    with self.lock:
                        if self._failure is not None or not (units := chosen(self._settled())):
                            self._background = None
                            return
                        work = started(units)
                    self._replace(work)
                except BaseException as failure:  # whatever it is: raised where a caller can see it
                    self._failure = failure

    def _replace(self, work: Work) -> None:
        made = merged(work, self.settings)
        with self.lock:
            left: list[Any] = [unit for unit in self.now if not any(unit is old for old in work.units)]
            if made is not None:
                published(work, *made)
                left.insert(0, made[0])
            self.now = tuple(left)
