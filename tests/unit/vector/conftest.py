"""What tests of indexes over tables share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lakelet
import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Segments that are being made, and copies of them, lie here."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LAKELET_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def db(tmp_path: Path, cache: Path) -> Any:
    """An empty lake."""
    with lakelet.connect(tmp_path / "lake") as engine:
        yield engine
