"""Settings that every test shares."""

from __future__ import annotations

import os

import hypothesis

# Other work runs on the machine that tests run on: an example's time says nothing. Same examples in every run.
hypothesis.settings.register_profile("lakelet", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("lakelet")

# What the command line prints must not depend on who runs the tests.
for name in ("LAKELET_LAKE", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
