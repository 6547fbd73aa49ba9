"""Building beside searching: threads that step back for others, and loops that let go of the interpreter.

A build takes every processor for seconds. On Linux a thread may lower its own priority, and threads that it starts
inherit that, so searches get a processor when they want one. Loops over many Python objects hold the interpreter's lock
for five milliseconds at a time unless they let go of it themselves.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["aside", "in_turns", "shared_out", "step_back"]

_T = TypeVar("_T")
NICENESS: Final = 10
TURN_ROWS: Final = 1_024


def step_back() -> None:
    """Lower the priority of this thread and of those that it will start; for threads that end with their work."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def aside(work: Callable[[], _T]) -> _T:
    """Do the work in a thread that steps back, and wait for it."""
    with ThreadPoolExecutor(1, "lakelet-build", initializer=step_back) as pool:
        return pool.submit(work).result()


def shared_out(work: Callable[[int], None], parts: range, threads: int) -> None:
    """Do the work for each part on so many threads, which have this one's priority; whoever is free takes the next."""
    if threads == 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, parts))


def in_turns(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Slices of a long sequence, with a chance for other threads between them."""
    for first in range(0, len(items), TURN_ROWS):
        if first:
            time.sleep(0)
        yield items[first : first + TURN_ROWS]
