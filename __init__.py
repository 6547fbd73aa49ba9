"""lakelet: an embeddable data-lake engine. This file is the public face; it imports nothing until a name is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .containment.prices import Prices as Prices
    from .engine import Engine as Engine
    from .engine import connect as connect
    from .lake.errors import CommitUnknown as CommitUnknown
    from .lake.errors import Conflict as Conflict
    from .lake.errors import Corrupt as Corrupt
    from .lake.errors import InvalidInput as InvalidInput
    from .lake.errors import InvalidSQL as InvalidSQL
    from .lake.errors import LakeletError as LakeletError
    from .lake.errors import LimitExceeded as LimitExceeded
    from .lake.errors import NotFound as NotFound
    from .lake.errors import Unavailable as Unavailable
    from .vector.index import VectorIndex as VectorIndex
    from .vector.labels import ALL_TENANTS as ALL_TENANTS
    from .vector.labels import PUBLIC as PUBLIC
    from .vector.predicates import Tenant as Tenant

_HOME = {
    "ALL_TENANTS": ".vector.labels",
    "CommitUnknown": ".lake.errors",
    "Conflict": ".lake.errors",
    "Corrupt": ".lake.errors",
    "Engine": ".engine",
    "InvalidInput": ".lake.errors",
    "InvalidSQL": ".lake.errors",
    "LakeletError": ".lake.errors",
    "LimitExceeded": ".lake.errors",
    "NotFound": ".lake.errors",
    "PUBLIC": ".vector.labels",
    "Prices": ".containment.prices",
    "Tenant": ".vector.predicates",
    "Unavailable": ".lake.errors",
    "VectorIndex": ".vector.index",
    "connect": ".engine",
}

__all__ = [
    "ALL_TENANTS",
    "PUBLIC",
    "CommitUnknown",
    "Conflict",
    "Corrupt",
    "Engine",
    "InvalidInput",
    "InvalidSQL",
    "LakeletError",
    "LimitExceeded",
    "NotFound",
    "Prices",
    "Tenant",
    "Unavailable",
    "VectorIndex",
    "connect",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_HOME[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
