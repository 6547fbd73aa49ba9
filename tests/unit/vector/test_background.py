"""Threads that step back, and loops that let others have a turn."""

from __future__ import annotations

import os
import sys
import threading

import pytest
from lakelet.vector.background import aside, in_turns


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of single threads")
def test_work_aside_has_less_priority_and_so_have_threads_that_it_starts() -> None:
    def priorities() -> list[int]:
        found = [os.getpriority(os.PRIO_PROCESS, threading.get_native_id())]
        child = threading.Thread(
            target=lambda: found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        )
        child.start()
        child.join()
        return found

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert min(aside(priorities)) > before
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_what_fails_aside_fails_here() -> None:
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 // 0)


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 5000])
def test_turns_are_the_whole_in_order(count: int) -> None:
    items = list(range(count))
    assert [each for some in in_turns(items) for each in some] == items
