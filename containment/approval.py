"""Approvals: a TOML file in which owners agree that their tables are retired.

[orders_2023]
owner = "finance"
reason = "all of it is in orders"
"""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING, Any

from ..lake.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_approvals"]


def check_approvals(path: str | os.PathLike[str], tables: Sequence[str]) -> None:
    """Raise InvalidInput, naming them, when tables lack an owner or a reason in the file; NotFound without a file."""
    where = os.fspath(path)
    try:
        with open(where, "rb") as file:
            found: dict[str, Any] = tomllib.load(file)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file of approvals {where}: write one, with a section for each table") from error
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{where} cannot be read as TOML: {error}") from error
    lacking = [name for name in tables if not _is_approved(found.get(name))]
    if lacking:
        more = f" and {len(lacking) - 20:,} more" if len(lacking) > 20 else ""
        raise InvalidInput(
            f"{where} has no owner and reason for {', '.join(map(repr, lacking[:20]))}{more}. "
            'Add a section for each: ["table"], owner = "…", reason = "…"'
        )


def _is_approved(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(found.get(key), str) and found[key].strip() for key in ("owner", "reason")
    )
