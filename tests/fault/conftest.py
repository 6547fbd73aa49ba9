"""What fault tests share: every system call on a file can be the last one, or fail."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

CALLS = ["open", "fdopen", "fstat", "fchmod", "ftruncate", "pwrite", "fsync", "replace", "unlink", "close"]


@pytest.fixture
def watch() -> Callable[[pytest.MonkeyPatch, Callable[[int, str, Callable[[], Any]], Any]], list[str]]:
    """``watch(patch, wrong)``: each call of CALLS goes through ``wrong(its number, its name, the call)``.

    It returns the names of those made so far.
    """

    def watched(patch: pytest.MonkeyPatch, wrong: Callable[[int, str, Callable[[], Any]], Any]) -> list[str]:
        made: list[str] = []

        def through(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                made.append(name)
                return wrong(len(made) - 1, name, lambda: real(*args, **kwargs))

            return call

        for name in CALLS:
            patch.setattr(os, name, through(name, getattr(os, name)))
        return made

    return watched
