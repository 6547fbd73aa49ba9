"""What the systems of ``multi_tenant_peers.py`` are given, and what each of them is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

Array = np.ndarray[Any, Any]


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
