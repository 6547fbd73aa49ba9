"""What fault tests share: every system call on a file can be the last one, or fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import pytest

CALLS = ["open", "fdopen", "fstat", "fchmod", "ftruncate", "pwrite", "fsync", "replace", "unlink", "close"]


class Crash(BaseException):
    """The process is dead: nothing that it does from now on reaches the file system."""


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """``watch(work, wrong)``: do the work, each call of CALLS through ``wrong(its number, its name, the call)``.

    It returns the names of those made; a Crash ends the work.
    """

    def watched(work: Callable[[], object], wrong: Callable[[int, str, Callable[[], Any]], Any]) -> list[str]:
        made: list[str] = []

        def through(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                made.append(name)
                return wrong(len(made) - 1, name, lambda: real(*args, **kwargs))

            return call

        with monkeypatch.context() as patch, contextlib.suppress(Crash):
            for name in CALLS:
                patch.setattr(os, name, through(name, getattr(os, name)))
            work()
        return made

    return watched


@pytest.fixture
def dying(watch: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """``dying(work, at, after)``: the process dies before, or after, its call number ``at``."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the process dies here, not the machine

    def run(work: Callable[[], object], at: int, after: bool) -> list[str]:
        def wrong(number: int, name: str, call: Callable[[], Any]) -> Any:
            if number > at or (number == at and not after):
                raise Crash
            answer = call()
            if number == at:
                raise Crash
            return answer

        return watch(work, wrong)

    return run


@pytest.fixture
def failing(watch: Callable[..., list[str]]) -> Callable[..., tuple[list[str], Exception | None]]:
    """``failing(work, at, code, told)``: call number ``at`` fails with the errno; the calls, and which of told came."""

    def run(
        work: Callable[[], object], at: int, code: int, told: tuple[type[Exception], ...]
    ) -> tuple[list[str], Exception | None]:
        errors: list[Exception] = []

        def wrong(number: int, name: str, call: Callable[[], Any]) -> Any:
            answer = call() if number != at or name == "close" else None  # it is closed, also when it complains
            if number == at:
                raise OSError(code, os.strerror(code))
            return answer

        def tried() -> None:
            try:
                work()
            except told as caught:
                errors.append(caught)

        made = watch(tried, wrong)
        return made, errors[0] if errors else None

    return run
