"""What the systems of ``multi_tenant_peers.py`` are given, and what each of them is asked for."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy as np
import real_vectors

Array = np.ndarray[Any, Any]
NOISE = 0.2
"""The length of what a repeated row is moved by; rows have length 1."""


def parser_of(what: str | None) -> argparse.ArgumentParser:
    """The arguments that the benchmarks of tenants have in common."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=real_vectors.DEFAULT_FOLDER)
    parser.add_argument("--set", default="text256", choices=(*real_vectors.SETS, "synthetic"))
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--threads", type=int, default=2, help="for building")
    parser.add_argument("--no-results", action="store_true", help="print alone")
    return parser


def vectors_of(folder: Path, name: str, rows: int, seed: int) -> Array:
    """So many unit vectors, in an order of their own: a smaller number gives the first of a larger.

    Beyond what the set has, its rows are repeated, each moved a little.
    """
    if name == "synthetic":
        return real_vectors.synthetic(rows, 256, seed)
    stored = real_vectors.load(folder, name)
    if rows <= len(stored):
        return np.array(stored[:rows])
    parts, rng = [np.asarray(stored)], np.random.default_rng(seed)
    while (missing := rows - sum(map(len, parts))) > 0:
        more = np.array(stored[: min(missing, len(stored))])
        more += rng.standard_normal(more.shape, np.float32) * np.float32(NOISE / more.shape[1] ** 0.5)
        parts.append(more / np.linalg.norm(more, axis=1, keepdims=True))
    return np.concatenate(parts)


@dataclass(frozen=True)
class Work:
    """What is searched: ``base`` float32 (n, dim), and who may see row i: ``labels[offsets[i] : offsets[i + 1]]``."""

    base: Array
    offsets: Array
    labels: Array
    tenants: int
    threads: int
    """For building."""

    @property
    def sizes(self) -> Array:
        """The rows of each tenant."""
        return np.bincount(self.labels, minlength=self.tenants)

    def members(self) -> list[Array]:
        """The rows of each tenant, ascending."""
        rows = np.repeat(np.arange(len(self.base)), np.diff(self.offsets))
        order = np.argsort(self.labels, kind="stable")
        return np.split(rows[order], np.cumsum(self.sizes)[:-1])

    def lists(self) -> list[list[int]]:
        """The tenants of each row, as Python lists."""
        flat, ends = self.labels.tolist(), self.offsets.tolist()
        return [flat[start:stop] for start, stop in pairwise(ends)]


class System:
    """One way to search; what the names below mean, a subclass says in figures."""

    name: ClassVar[str]
    label: ClassVar[str]
    package: ClassVar[str] = "lakelet"
    shared: ClassVar[bool] = True
    """One structure for all tenants, that is built once whoever sees the rows."""
    native: ClassVar[bool] = False
    """A shared index with a selector of its own: the yardstick for shared ones."""
    sweep: ClassVar[tuple[Any, ...]] = (None,)
    """The settings to try, the fastest first."""
    knob: ClassVar[str] = ""
    few: ClassVar[int | None] = None
    """As many queries at most: it takes long, and is shown without being a yardstick."""
    kept_seconds: float | None = None
    """What building took when it was done, if :meth:`assign` read what it had kept."""

    def build(self, base: Array, threads: int) -> None:
        """Make what does not depend on tenants."""

    def assign(self, work: Work, members: list[Array]) -> None:
        """Take the tenants' rows."""

    def use(self, setting: Any) -> None:
        """Search with this setting from now on."""

    def search(self, query: Array, tenant: int, k: int) -> Array:
        """The ids of the k nearest rows that the tenant sees, or fewer."""
        raise NotImplementedError

    def nbytes(self) -> int:
        """Bytes in memory, vectors included, as the system itself counts them."""
        return 0

    def wants(self, work: Work) -> int:
        """About how many bytes :meth:`assign` will take."""
        return 0

    def release(self) -> None:
        """Let go of what belongs to the tenants."""
