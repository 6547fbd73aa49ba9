"""What a local store says when the disk refuses, and that nothing half-made is left."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest
from lakelet.lake.errors import CommitUnknown, InvalidInput, NotFound, Unavailable
from lakelet.lake.local_store import LocalStore

if TYPE_CHECKING:
    from pathlib import Path


def _objects(store: LocalStore) -> list[str]:
    return [info.path for info in store.list("")]


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.ENOSPC, "disk full"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "retry"),
    ],
)
@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_a_refused_write_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, word: str, call: str
) -> None:
    store = LocalStore(tmp_path / "lake")
    store.put("log/1", b"there")

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(Unavailable, match=word) as caught:
            store.create("log/2", b"x" * 100)
        assert str(tmp_path) in str(caught.value)
        with pytest.raises(Unavailable, match=word):
            store.put("log/1", b"y" * 100)
    assert _objects(store) == ["log/1"]
    assert store.get("log/1") == b"there"
    assert store.create("log/2", b"now")


def test_a_file_system_without_links_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOTSUP, "no links")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(Unavailable, match="hard links"):
        store.create("log/1", b"x")
    assert _objects(store) == []


def test_a_link_whose_folder_cannot_be_synced_is_in_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.put("log/1", b"x")
    real_fsync, real_link = os.fsync, os.link
    linked: list[bool] = []

    def link(*args: Any, **kwargs: Any) -> None:
        real_link(*args, **kwargs)
        linked.append(True)

    def fsync(descriptor: int) -> None:
        if linked:
            raise OSError(errno.EIO, "broken")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CommitUnknown):
        store.create("log/2", b"y")


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:7]))
    store = LocalStore(tmp_path)
    assert store.create("log/1", b"0123456789" * 5)
    assert store.get("log/1") == b"0123456789" * 5


def test_the_root_may_be_removed_and_comes_back(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "a" / "b")
    store.put("x/1", b"1")
    os.unlink(store.full_path("x/1"))
    os.rmdir(tmp_path / "a" / "b" / "x")
    assert store.create("x/1", b"2")
    assert store.get("x/1") == b"2"


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = LocalStore(tmp_path / "file")
    with pytest.raises(Unavailable, match="a file stands where a folder is needed"):
        store.create("log/1", b"x")
    assert store.get_many(["log/1"]) == [None]


def test_hostile_roots() -> None:
    with pytest.raises(InvalidInput):
        LocalStore("")
    with pytest.raises(InvalidInput):
        LocalStore("a\0b")


def test_sync_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        LocalStore(tmp_path).sync("data/t/none")


def test_files_are_readable_by_others(tmp_path: Path) -> None:
    """A lake is shared between users: the umask decides, not the private mode of temporary files."""
    store = LocalStore(tmp_path)
    old = os.umask(0o022)
    try:
        store.create("a", b"")
        store.put("b", b"")
    finally:
        os.umask(old)
    assert os.stat(tmp_path / "a").st_mode & 0o777 == 0o644
    assert os.stat(tmp_path / "b").st_mode & 0o777 == 0o644
