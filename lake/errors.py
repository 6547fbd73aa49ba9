"""Every error that lakelet raises on purpose, told apart by what the caller does next.

    LakeletError
    ├── InvalidInput     fix the call
    │   └── InvalidSQL   fix the query; also a where that does not parse
    ├── NotFound         no such table, version, view or file
    ├── Conflict         somebody else changed what this commit needs: reload and retry
    ├── CommitUnknown    the commit may have happened: re-read the lake before retrying
    ├── Corrupt          stored bytes are not what was written: restore them
    ├── LimitExceeded    a stated bound was reached: raise it or ask for less
    └── Unavailable      a dependency or a store is missing or refuses to work

Messages say what was found, what was expected, and the mend.
"""

from __future__ import annotations

__all__ = [
    "CommitUnknown",
    "Conflict",
    "Corrupt",
    "InvalidInput",
    "InvalidSQL",
    "LakeletError",
    "LimitExceeded",
    "NotFound",
    "Unavailable",
]


class LakeletError(Exception):
    """The base of all errors that lakelet raises on purpose."""


class InvalidInput(LakeletError, ValueError):
    """The call cannot work as made; nothing was changed. Mend the call."""


class InvalidSQL(InvalidInput):
    """A query or a ``where`` does not parse, bind or run. Mend the text or the parameters."""


class NotFound(LakeletError, LookupError):
    """The table, view, version or file that was named is not there."""


class Conflict(LakeletError):
    """Another commit changed what this one relies on. Reload and retry."""


class CommitUnknown(LakeletError):
    """The commit may or may not have happened. Re-read the lake, then decide."""


class Corrupt(LakeletError):
    """Stored bytes are not what was written. Restore the file that is named.

    Attributes: ``path`` the object in the store; ``offset`` the byte where reading failed, or None when unknown.
    """

    def __init__(self, message: str, *, path: str = "", offset: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.offset = offset


class LimitExceeded(LakeletError):
    """A stated bound of :mod:`lakelet.lake.limits` was reached. Ask for less, or raise the bound."""


class Unavailable(LakeletError):
    """A dependency is not installed, or a store cannot be reached or cannot do what is needed."""
