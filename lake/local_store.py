"""A lake in a folder of a local file system.

Why not fsspec's local file system: its ``mode="create"`` tests and then writes, so two writers both win, and opening
with O_EXCL leaves a torn object when the writer dies. Here an object is written and synced under another name first;
``os.link`` to its own name then either makes it whole or finds the name taken.
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from typing import TYPE_CHECKING, Final

from .errors import CommitUnknown, InvalidInput, LakeletError, NotFound, Unavailable
from .store import TMP, ObjectInfo, check_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import fsspec
    import pyarrow.fs

__all__ = ["LocalStore", "remove_quietly", "sync_folder", "unavailable"]

_MENDS: Final = {
    errno.EACCES: "permission denied: grant this user read and write on the folder, or connect with read_only=True",
    errno.EPERM: "not permitted: the file system must allow hard links and this user must own the folder",
    errno.ENOSPC: "disk full: free some space and retry",
    errno.EDQUOT: "disk quota reached: free some space and retry",
    errno.EROFS: "read-only file system: connect with read_only=True, or mount it for writing",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another root",
    errno.EISDIR: "a folder stands where a file is needed: restore the lake",
    errno.EXDEV: "the lake spans two file systems: keep all of it on one",
    errno.ENOTSUP: "the file system has no hard links: put the lake on one that has them",
    errno.EMFILE: "too many open files: raise ulimit -n",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter root",
}


class LocalStore:
    """Objects are files below ``root``, an existing folder or one that the first write makes.

    ``create`` and ``put`` are durable when they return: file and folder entries are synced.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Nothing is read or made yet."""
        text = os.fspath(root)
        if not text or "\0" in text:
            raise InvalidInput(f"found the root {text!r}; expected the path of a folder")
        self.uri = os.path.abspath(text)
        self._arrow: pyarrow.fs.FileSystem | None = None
        self._durable_folders: set[str] = set()

    # --- the port ------------------------------------------------------------------------------------------------

    def create(self, path: str, data: bytes) -> bool:
        """Make the object if absent, whole and durable. Raises CommitUnknown if only its durability is in doubt."""
        target = self.full_path(path)
        if os.path.lexists(target):  # the link would only say the same, after two syncs
            return False
        temporary = self._write_temporary(target, data)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            raise unavailable(error, target, "create") from error
        finally:
            remove_quietly(temporary)
        try:
            sync_folder(os.path.dirname(target))
        except OSError as error:
            raise CommitUnknown(
                f"{target} was made, but its folder could not be synced ({error}): it may not survive power loss"
            ) from error
        return True

    def put(self, path: str, data: bytes) -> None:
        """Write or replace the object atomically and durably."""
        target = self.full_path(path)
        temporary = self._write_temporary(target, data)
        try:
            os.replace(temporary, target)
            sync_folder(os.path.dirname(target))
        except OSError as error:
            remove_quietly(temporary)
            raise unavailable(error, target, "write") from error

    def get(self, path: str) -> bytes:
        """All bytes of the object; NotFound when there is none."""
        data = self._read(self.full_path(path))
        if data is None:
            raise NotFound(f"found no object {path!r} in the lake at {self.uri}")
        return data

    def get_many(self, paths: Sequence[str]) -> list[bytes | None]:
        """All bytes of each object, None where there is none. One after another: local reads do not wait."""
        return [self._read(self.full_path(path)) for path in paths]

    def exists(self, path: str) -> bool:
        """Whether the object is there."""
        try:
            return stat.S_ISREG(os.stat(self.full_path(path)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise unavailable(error, path, "look at") from error

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every file below the folder ``prefix``; files that vanish meanwhile are left out."""
        if prefix and not prefix.endswith("/"):
            raise InvalidInput(f"found the prefix {prefix!r}; expected a folder that ends in a slash")
        pending = [self.full_path(prefix.rstrip("/")) if prefix else self.uri]
        skip = len(self.uri.rstrip("/")) + 1
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
                            continue
                        try:
                            info = entry.stat()
                        except FileNotFoundError:
                            continue
                        yield ObjectInfo(entry.path[skip:], info.st_size, info.st_mtime_ns // 1000)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise unavailable(error, folder, "list") from error

    def delete(self, paths: Sequence[str]) -> None:
        """Remove the files; those that are gone already are no error."""
        for path in paths:
            target = self.full_path(path)
            try:
                os.unlink(target)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise unavailable(error, target, "delete") from error

    def full_path(self, path: str) -> str:
        """The absolute path of the object's file."""
        return os.path.join(self.uri, check_path(path))

    def sync(self, path: str) -> None:
        """Sync the file and the folder that names it, and the folders above up to the root."""
        target = self.full_path(path)
        try:
            descriptor = os.open(target, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            folder = os.path.dirname(target)
            sync_folder(folder)
            # Arrow made the folders without syncing them. Nobody removes them, so each is synced into its parent once.
            while len(folder) > len(self.uri) and folder not in self._durable_folders:
                parent = os.path.dirname(folder)
                sync_folder(parent)
                self._durable_folders.add(folder)
                folder = parent
        except FileNotFoundError as error:
            raise NotFound(f"found no object {path!r} to sync in the lake at {self.uri}") from error
        except OSError as error:
            raise unavailable(error, target, "sync") from error

    @property
    def arrow(self) -> pyarrow.fs.FileSystem:
        """Arrow's local file system, rooted at the folder."""
        if self._arrow is None:
            import pyarrow.fs

            self._arrow = pyarrow.fs.SubTreeFileSystem(self.uri, pyarrow.fs.LocalFileSystem())
        return self._arrow

    @property
    def fsspec(self) -> fsspec.AbstractFileSystem | None:
        """None: DuckDB reads local paths by itself."""
        return None

    # --- inside --------------------------------------------------------------------------------------------------

    def _read(self, target: str) -> bytes | None:
        try:
            with open(target, "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unavailable(error, target, "read") from error

    def _write_temporary(self, target: str, data: bytes) -> str:
        """A synced file with these bytes, on the file system of ``target``, whose folder exists afterwards."""
        folder = os.path.join(self.uri, TMP.rstrip("/"))
        temporary = os.path.join(folder, uuid.uuid4().hex)
        try:
            _make_folder(folder)
            _make_folder(os.path.dirname(target))
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            remove_quietly(temporary)
            raise unavailable(error, target, "write") from error
        return temporary


def _make_folder(folder: str) -> None:
    """The folder exists durably: each new one is synced into its parent."""
    missing = []
    step = folder
    while not os.path.isdir(step):
        missing.append(step)
        step = os.path.dirname(step)
    for step in reversed(missing):
        try:
            os.mkdir(step)
        except FileExistsError:
            if not os.path.isdir(step):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), step) from None
        sync_folder(os.path.dirname(step))


def sync_folder(folder: str) -> None:
    """Make what was created, renamed or removed in a folder outlive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_quietly(path: str) -> None:
    """A leftover in the temporary folder harms nobody; vacuum takes it later."""
    try:
        os.unlink(path)
    except OSError:
        return


def unavailable(error: OSError, path: str, doing: str) -> LakeletError:
    """What to raise for an error of the disk, with the mend."""
    mend = _MENDS.get(error.errno or 0, f"{error.strerror or error}: see that the disk works and retry")
    return Unavailable(f"could not {doing} {path}: {mend}")
