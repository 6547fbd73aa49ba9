"""Fail when `import lakelet` costs 50 ms or more beyond starting Python: best of seven runs of each."""

from __future__ import annotations

import subprocess
import sys
import time

LIMIT_SECONDS = 0.05


def best_seconds(code: str) -> float:
    """The quickest of seven fresh interpreters that run ``code``."""
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> int:
    """Print the cost and say by the exit code whether it is within the limit."""
    cost = best_seconds("import lakelet") - best_seconds("pass")
    print(f"import lakelet costs {cost * 1e3:.1f} ms; the limit is {LIMIT_SECONDS * 1e3:.0f} ms")
    return int(cost >= LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
