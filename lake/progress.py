"""Progress of long work: shown by rich on a terminal, silent elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .limits import PROGRESS_DELAY_SECONDS

__all__ = ["Progress", "shown"]

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``, often and from any thread; raising in it cancels the work."""


@contextmanager
def shown(progress: Progress | None) -> Iterator[Progress]:
    """The caller's own ``progress``, or a bar on standard error when that is a terminal, or nothing.

    The bar appears only when the work lasts longer than PROGRESS_DELAY_SECONDS, and is gone at the end.
    """
    if progress is not None:
        yield progress
    elif not sys.stderr.isatty():
        yield lambda _stage, _done, _total: None
    else:
        with _bar() as bar:
            yield bar


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    display = RichProgress(*columns, console=Console(stderr=True), transient=True)
    began_seconds = time.monotonic()
    tasks: dict[str, TaskID] = {}

    def update(stage: str, done: int, total: int) -> None:
        if not tasks and time.monotonic() - began_seconds < PROGRESS_DELAY_SECONDS:
            return
        if not tasks:
            display.start()
        if stage not in tasks:
            tasks[stage] = display.add_task(stage, total=total)
        display.update(tasks[stage], completed=done, total=total)

    try:
        yield update
    finally:
        display.stop()
