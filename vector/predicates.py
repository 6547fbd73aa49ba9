"""AND, OR and NOT over tenants: the rows they name as one sorted list, from then on searched like a tenant's.

``Tenant("a")`` is what a search with ``tenant="a"`` sees: the rows granted to a, and the public ones. A list made for a
predicate is kept with its sub-tree until a list that it was made of changes: Curator's temporary index (arXiv
2601.01291).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..lake.errors import InvalidInput
from .ascending import difference, intersection, union
from .labels import PUBLIC_CODE, Label, LabelTable, checked
from .postings import NONE, folded

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from .postings import Posting

__all__ = ["And", "Not", "Or", "Predicate", "Tenant", "selected"]


class Predicate(ABC):
    """A condition on who may see a row; combine with ``&``, ``|`` and ``~``."""

    __slots__ = ()

    def __and__(self, other: Predicate) -> And:
        return And(self, _predicate(other))

    def __or__(self, other: Predicate) -> Or:
        return Or(self, _predicate(other))

    def __invert__(self) -> Not:
        return Not(self)

    @abstractmethod
    def labels(self) -> tuple[Label, ...]:
        """The labels it names."""


def _predicate(value: object) -> Predicate:
    if not isinstance(value, Predicate):
        raise InvalidInput(f"a predicate combines with a predicate, not with {value!r}; write Tenant({value!r})")
    return value


@dataclass(frozen=True, slots=True)
class Tenant(Predicate):
    """Rows that a tenant may see: those granted to it, and the public ones."""

    label: Label

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", checked(self.label))

    def labels(self) -> tuple[Label, ...]:
        """The one label."""
        return (self.label,)


@dataclass(frozen=True, slots=True)
class And(Predicate):
    """Rows that both name."""

    left: Predicate
    right: Predicate

    def labels(self) -> tuple[Label, ...]:
        """The labels of both."""
        return self.left.labels() + self.right.labels()


@dataclass(frozen=True, slots=True)
class Or(Predicate):
    """Rows that one of the two names."""

    left: Predicate
    right: Predicate

    def labels(self) -> tuple[Label, ...]:
        """The labels of both."""
        return self.left.labels() + self.right.labels()


@dataclass(frozen=True, slots=True)
class Not(Predicate):
    """Rows that it does not name, rows without a tenant among them."""

    inner: Predicate

    def labels(self) -> tuple[Label, ...]:
        """The labels of what is denied."""
        return self.inner.labels()


def selected(
    predicate: Predicate, table: LabelTable, list_of: Callable[[int], Posting], everything: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """The ascending positions that a predicate names in one unit, whose rows are ``everything``."""
    match predicate:
        case Tenant(label):
            public = folded(list_of(PUBLIC_CODE))
            code = table.find(label)
            return public if code is None else union(public, folded(list_of(code)))
        case And(left, Not(right)):
            return difference(*(selected(each, table, list_of, everything) for each in (left, right)))
        case And(left, right):
            return intersection(*(selected(each, table, list_of, everything) for each in (left, right)))
        case Or(left, right):
            return union(*(selected(each, table, list_of, everything) for each in (left, right)))
        case Not(inner):
            return difference(everything, selected(inner, table, list_of, everything))
    return NONE
