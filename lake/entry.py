"""A log entry as bytes: JSON with a format version in front and a checksum over the rest.

``{"format":1,"checksum":"<sha-256 in hex>","entry":{…}}``. The checksum covers the bytes of ``entry`` as they stand, so
that a damaged entry is told from one that another version of lakelet wrote.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from typing import Any, Final

from .changes import (
    AddFiles,
    AttachTable,
    Change,
    CreateLake,
    CreateTable,
    DataFile,
    DeleteRows,
    DeletionFile,
    DropIndex,
    DropTable,
    DropView,
    FilesPresent,
    FilesUnchanged,
    NameFree,
    Recipe,
    RemoveFiles,
    RenameTable,
    Requirement,
    SetIndex,
    SetPin,
    SetSchema,
    SetView,
    SourceFile,
    TableUnchanged,
)
from .errors import Corrupt, InvalidInput, Unavailable
from .store import check_path
from .table_index import IndexSegment, TableIndex

__all__ = [
    "FORMAT",
    "LOG",
    "CommitRecord",
    "Entry",
    "decode",
    "encode",
    "index_of",
    "index_text",
    "log_path",
    "log_version",
    "recipe_of",
    "recipe_text",
]

FORMAT: Final = 1
"""Version of what stands below ``_lakelet/``. A reader refuses anything newer."""
LOG: Final = "_lakelet/log/"
"""The folder of the log's entries."""

_CHANGES: Final[dict[str, type[Any]]] = {
    kind.__name__: kind
    for kind in (
        CreateLake,
        CreateTable,
        SetSchema,
        AddFiles,
        RemoveFiles,
        DeleteRows,
        DropTable,
        RenameTable,
        AttachTable,
        SetView,
        DropView,
        SetPin,
        SetIndex,
        DropIndex,
    )
}
_REQUIREMENTS: Final[dict[str, type[Any]]] = {
    kind.__name__: kind for kind in (NameFree, TableUnchanged, FilesPresent, FilesUnchanged)
}
_PARTS: Final = (DataFile, DeletionFile, Recipe, SourceFile, TableIndex, IndexSegment)
"""What changes are made of."""
_HEAD: Final = re.compile(rb'\{"format":(\d{1,9}),"checksum":"([0-9a-f]{64})","entry":')
_CHECKSUM: Final = re.compile(r"[0-9a-f]{64}")
_LOG_NAME: Final = re.compile(re.escape(LOG) + r"(\d{20})\.json")


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """What one caller committed. ``commit_id`` tells it from every other commit, also after a lost answer."""

    commit_id: str
    operation: str
    changes: tuple[Change, ...]
    requirements: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One log file: the commits of one version, in order. ``base`` is the version before."""

    version: int
    timestamp_us: int
    commits: tuple[CommitRecord, ...]

    @property
    def base(self) -> int:
        """The version that this entry was made on top of."""
        return self.version - 1

    @property
    def commit_ids(self) -> frozenset[str]:
        """The ids by which its writer knows it again."""
        return frozenset(commit.commit_id for commit in self.commits)


def log_path(version: int) -> str:
    """The slot of a version: ``_lakelet/log/<20 digits>.json``."""
    return f"{LOG}{version:020d}.json"


def log_version(path: str) -> int | None:
    """The version whose slot ``path`` is, or None for something else."""
    match = _LOG_NAME.fullmatch(path)
    return int(match[1]) if match else None


# --- writing -----------------------------------------------------------------------------------------------------


def encode(entry: Entry) -> bytes:
    """The bytes of the entry. Raises InvalidInput for text that UTF-8 cannot hold."""
    document = {
        "version": entry.version,
        "base": entry.base,
        "timestamp_us": entry.timestamp_us,
        "commits": [
            {
                "id": commit.commit_id,
                "operation": commit.operation,
                "changes": [_plain(change, kind=True) for change in commit.changes],
                "requirements": [_plain(requirement, kind=True) for requirement in commit.requirements],
            }
            for commit in entry.commits
        ],
    }
    try:
        body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"found text that is not Unicode ({error}); expected names and SQL in valid Unicode"
        ) from error
    checksum = hashlib.sha256(body).hexdigest()
    return b'{"format":%d,"checksum":"%s","entry":%s}\n' % (FORMAT, checksum.encode(), body)


def _plain(value: Any, *, kind: bool = False) -> dict[str, Any]:
    """A change, requirement or file as JSON objects; fields that hold their default are left out."""
    plain: dict[str, Any] = {"kind": type(value).__name__} if kind else {}
    for name, _, default in _FIELDS[type(value)]:
        item = getattr(value, name)
        if item == default:
            continue
        if isinstance(item, tuple):
            plain[name] = [_plain(part) if isinstance(part, _PARTS) else part for part in item]
        else:
            plain[name] = _plain(item) if isinstance(item, _PARTS) else item
    return plain


# --- reading -----------------------------------------------------------------------------------------------------


def decode(data: bytes, version: int) -> Entry:
    """The entry of slot ``version``. Raises Corrupt for damaged bytes, Unavailable for those of a newer lakelet."""
    path = log_path(version)
    head = _HEAD.match(data)
    if head is None:
        _refuse_newer(data, path)
        raise Corrupt(f"{path} is not a log entry: its first bytes are {data[:24]!r}; {_MEND}", path=path, offset=0)
    if int(head[1]) > FORMAT:
        raise _newer(int(head[1]), path)
    body = data[head.end() : -2]
    if data[-2:] != b"}\n" or hashlib.sha256(body).hexdigest().encode() != head[2]:
        raise Corrupt(
            f"{path} is damaged: its checksum does not match its bytes; {_MEND}", path=path, offset=head.end()
        )
    try:
        entry = _entry(json.loads(body))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Corrupt(f"{path} says what no log entry can say: {error}; {_MEND}", path=path) from error
    if entry.version != version:
        raise Corrupt(f"{path} holds version {entry.version}: a file was renamed or copied; {_MEND}", path=path)
    return entry


_MEND: Final = "restore it from a copy of the lake"


def _newer(found: int, path: str) -> Unavailable:
    return Unavailable(f"{path} has format {found}, this lakelet reads up to {FORMAT}: pip install --upgrade lakelet")


def _refuse_newer(data: bytes, path: str) -> None:
    """A later format may look different altogether, but it will say its number."""
    try:
        found = json.loads(data).get("format")
    except (ValueError, AttributeError, RecursionError):
        return
    if isinstance(found, int) and found > FORMAT:
        raise _newer(found, path)


def _entry(document: dict[str, Any]) -> Entry:
    version, base = _whole(document["version"]), _whole(document["base"])
    if base != version - 1:
        raise ValueError(f"version {version} on top of {base}")
    commits = tuple(
        CommitRecord(
            commit_id=_text(commit["id"]),
            operation=_text(commit["operation"]),
            changes=tuple(_value(_kind(item, _CHANGES), item) for item in commit["changes"]),
            requirements=tuple(_value(_kind(item, _REQUIREMENTS), item) for item in commit["requirements"]),
        )
        for commit in document["commits"]
    )
    if not commits:
        raise ValueError("no commits")
    return Entry(version, _whole(document["timestamp_us"]), commits)


def _kind(item: dict[str, Any], kinds: dict[str, type[Any]]) -> type[Any]:
    kind = kinds.get(item["kind"])
    if kind is None:
        raise ValueError(f"unknown kind {item['kind']!r}")
    return kind


def _value(kind: type[Any], item: Any) -> Any:
    """An instance of ``kind``, every field of the declared type."""
    if not isinstance(item, dict):
        raise TypeError(f"{item!r} where {kind.__name__} is expected")
    values = {name: read(item[name]) for name, read, _ in _FIELDS[kind] if name in item}
    if len(values) + ("kind" in item) != len(item):
        raise ValueError(f"unknown fields in {kind.__name__}: {sorted(item.keys() - values.keys() - {'kind'})}")
    return kind(**values)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} where text is expected")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} where a whole number is expected")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} where true or false is expected")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in _items(value))


def _wholes(value: Any) -> tuple[int, ...]:
    return tuple(_whole(item) for item in _items(value))


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} where a list is expected")
    return value


def _deletion(value: Any) -> DeletionFile:
    deletion: DeletionFile = _value(DeletionFile, value)
    check_path(deletion.path)
    return deletion


def _recipe(value: Any) -> Recipe:
    recipe: Recipe = _value(Recipe, value)
    for path in (recipe.residual, recipe.side):
        if path:
            check_path(path)
    return recipe


def _sources(value: Any) -> tuple[SourceFile, ...]:
    sources: tuple[SourceFile, ...] = tuple(_value(SourceFile, item) for item in _items(value))
    for source in sources:
        check_path(source.path)
    return sources


def _segments(value: Any) -> tuple[IndexSegment, ...]:
    segments: tuple[IndexSegment, ...] = tuple(_value(IndexSegment, item) for item in _items(value))
    for segment in segments:
        check_path(segment.path)
        if not _CHECKSUM.fullmatch(segment.checksum):
            raise ValueError(f"{segment.checksum!r} where a SHA-256 in hex is expected")
        files, numbers, rows = len(segment.files), len(set(segment.numbers)), len(segment.rows)
        if not len(segment.numbers) == numbers == rows == files:
            raise ValueError(f"{numbers} numbers and {rows} counts of rows for {files} files, not one for each")
    return segments


def _index(value: Any) -> TableIndex:
    index: TableIndex = _value(TableIndex, value)
    return index


def index_text(index: TableIndex) -> str:
    """The index as JSON text, for a checkpoint; :func:`index_of` reads it."""
    return json.dumps(_plain(index), separators=(",", ":"))


def index_of(text: str) -> TableIndex:
    """The index that :func:`index_text` wrote. Raises ValueError or TypeError when it is none."""
    return _index(json.loads(text))


def recipe_text(recipe: Recipe) -> str:
    """The recipe as JSON text, for a checkpoint; :func:`recipe_of` reads it."""
    return json.dumps(_plain(recipe), separators=(",", ":"))


def recipe_of(text: str) -> Recipe:
    """The recipe that :func:`recipe_text` wrote. Raises ValueError or TypeError when it is none."""
    return _recipe(json.loads(text))


def _files(value: Any) -> tuple[DataFile, ...]:
    files: tuple[DataFile, ...] = tuple(_value(DataFile, item) for item in _items(value))
    for file in files:
        check_path(file.path)
    return files


_READERS: Final = {
    "str": _text,
    "_Stats": _text,
    "str | None": _text_or_none,
    "int": _whole,
    "bool": _flag,
    "tuple[str, ...]": _texts,
    "tuple[int, ...]": _wholes,
    "tuple[DataFile, ...]": _files,
    "DeletionFile": _deletion,
    "DeletionFile | None": _deletion,
    "Recipe | None": _recipe,
    "tuple[SourceFile, ...]": _sources,
    "tuple[IndexSegment, ...]": _segments,
    "TableIndex": _index,
}
"""How a field of each declared type is read."""

_FIELDS: Final = {
    kind: [(f.name, _READERS[str(f.type)], f.default) for f in fields(kind)]
    for kind in (*_PARTS, *_CHANGES.values(), *_REQUIREMENTS.values())
}
"""Name, reader and default of each field of each kind; an annotation without a reader fails on import."""
