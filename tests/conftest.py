"""Settings that every test shares."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from lakelet import Engine

# Other work runs on the machine that tests run on: an example's time says nothing. Same examples in every run.
hypothesis.settings.register_profile("lakelet", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("lakelet")

# What the command line prints must not depend on who runs the tests.
for name in ("LAKELET_LAKE", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def retire() -> Callable[..., Any]:
    """``retire(db, (child, parent), …)`` rebuilds children from parents in one commit, and tells what came of it."""
    return _retire


def _retire(db: Engine, *pairs: tuple[str, str], memory_bytes: int = 2**28, must_pay: bool = False) -> Any:
    from lakelet.containment.retirement import plan_retirement

    snapshot = db._catalog.log.latest()
    found = plan_retirement(snapshot, db._catalog.store, db.table, pairs, memory_bytes=memory_bytes, must_pay=must_pay)
    if found.edit.changes:
        db._commit(found.edit, "retire", snapshot)
    return found
