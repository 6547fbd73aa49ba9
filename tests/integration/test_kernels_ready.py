"""What a new machine and a new process wait for before the first search, and what they are told meanwhile."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

STAGE = "compiling vector kernels, once for this machine"
SEARCH = """
import logging
import numpy as np
import lakelet
logging.basicConfig(level=logging.INFO)
rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
index = lakelet.VectorIndex(8)
index.add(rows, tenants="a")
print(index.search(rows[7], 1, "a")[0][0, 0])
"""
TERMINAL_SECONDS = 300


def on_a_terminal(cache: Path) -> str:
    """What a first search prints where standard error is a terminal, the compiled kernels being kept in ``cache``."""
    import pty  # not on Windows

    ours, theirs = pty.openpty()
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([sys.executable, "-c", SEARCH], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    printed, until = b"", time.monotonic() + TERMINAL_SECONDS
    try:
        while time.monotonic() < until:
            if select.select([ours], [], [], 1.0)[0]:
                try:
                    printed += os.read(ours, 65536)
                except OSError:  # Linux says so that the other side is closed
                    break
            elif process.poll() is not None:
                break
        assert process.wait(10) == 0, printed.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return printed.decode()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_compiling_is_announced_and_is_done_once_for_a_machine(tmp_path: Path) -> None:
    first = on_a_terminal(tmp_path)
    assert f"{STAGE} \x1b" in first or f"{STAGE} ━" in first, first  # the bar
    assert f"{STAGE}: took" in first  # the log
    assert "7\r\n" in first
    second = on_a_terminal(tmp_path)
    assert STAGE not in second
    assert "7\r\n" in second
