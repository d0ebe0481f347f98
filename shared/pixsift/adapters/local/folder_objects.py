"""``ports.ObjectStore`` over the files of folders on this machine.

An object is a regular file, its version the file's size, time and content hash. A file has one
version at a time: an older one is gone. Originals are only read. pixsift writes under a temporary
name and renames, so that a half-written file is never visible. Names and links are treated as
hostile: nothing outside a bucket's folder is read or written.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from pixsift.adapters.local.patience import Patience
from pixsift.core.files import FileVersion, folder_of, path_in, text_of
from pixsift.core.identity import ListedVersion, ObjectVersion, location
from pixsift.errors import (
    AccessDeniedError,
    DependencyDownError,
    ObjectGoneError,
    PermanentError,
    PixsiftError,
    TransientError,
)
from pixsift.ports import FetchedObject, ListedObject, ObjectHead

T = TypeVar("T")
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_DENIED = (errno.EACCES, errno.EPERM)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DOWN = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN, errno.ETIMEDOUT)
PATIENCE_SECONDS = 30.0
"""A disk that wakes up, and a share on the other side of a slow line, need some."""
_ONLY_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""A pipe in place of a file must not block the open call."""


@dataclass(slots=True)
class Walked:
    """What a walk found besides files."""

    links: int = 0
    """Symbolic links that point outside of the folder, to a folder, or to nothing."""
    hidden: int = 0
    """Folders whose name begins with a dot."""
    special: int = 0
    """Pipes, sockets, devices."""
    unreadable: list[str] = field(default_factory=list)
    """Folders that cannot be listed, and why."""


class FolderObjects:
    """See ``pixsift.ports.ObjectStore``. Thread-safe."""

    def __init__(self, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """patience_seconds: how long one call of the file system may take."""
        self._patience = Patience(patience_seconds)

    def iter_versions(
        self, bucket: str, prefix: str = "", *, after: str = ""
    ) -> Iterator[ListedObject]:
        """Regular files by key; hidden folders are left out, links are followed to files inside
        the folder only."""
        return self.walk(bucket, Walked(), prefix=prefix, after=after)

    def walk(
        self, bucket: str, walked: Walked, *, prefix: str = "", after: str = ""
    ) -> Iterator[ListedObject]:
        """As ``iter_versions``; ``walked`` counts what else is there.

        Raises AccessDeniedError, TransientError or DependencyDownError for the folder itself; a
        folder below that cannot be listed is noted and passed over.
        """
        self.check_bucket(bucket)
        folder = folder_of(bucket)
        root = self._call(folder, lambda: os.path.realpath(folder))
        yield from self._walk(root, root, "", walked=walked, prefix=prefix, after=after)

    def list_versions(self, bucket: str, key: str) -> list[ListedVersion]:
        """The one that is there."""
        found = self._stat(bucket, key)
        return [] if found is None else [_listed(found)]

    def head(
        self, bucket: str, key: str, *, version: ObjectVersion | None = None
    ) -> ObjectHead | None:
        """By size and time, without reading; None for another version than ``version``."""
        found = self._stat(bucket, key)
        if found is None:
            return None
        there, wanted = _version(found), FileVersion.parse(version.version_id) if version else None
        if version is not None and (wanted is None or not wanted.is_same_write(there)):
            return None
        return ObjectHead((wanted or there).version_id, "", found.st_size)

    def get(self, version: ObjectVersion) -> bytes:
        """The bytes of one object version; errors as for ``fetch``."""
        return self.fetch(version).body

    def fetch(
        self,
        version: ObjectVersion,
        *,
        max_bytes: int | None = None,
        reserve: Callable[[int], None] | None = None,
    ) -> FetchedObject:
        """One file, whole, if it is still the version that is asked for.

        Raises TransientError for one that changes while it is read.
        """
        where, wanted = _name(version), FileVersion.parse(version.version_id)
        if wanted is None:
            raise ObjectGoneError("overwritten", where)
        descriptor, before = self._open(version.bucket, version.key)
        try:
            if not wanted.is_same_write(_version(before)):
                raise ObjectGoneError("overwritten", where)
            if max_bytes is not None and before.st_size > max_bytes:
                raise PermanentError("too_large", f"{before.st_size} bytes, limit {max_bytes}")
            if reserve is not None:
                reserve(before.st_size)
            body, after = self._call(
                where, lambda: (_read_all(descriptor, before.st_size), os.fstat(descriptor))
            )
        finally:
            self._close(descriptor)
        if len(body) != before.st_size or _version(after) != _version(before):
            raise TransientError(f"{where} changed while it was read")
        digest = hashlib.sha256(body)
        there = _version(before).with_content(digest.digest())
        if not wanted.is_same_write(there):
            raise ObjectGoneError("overwritten", where)
        return FetchedObject(
            body,
            etag=digest.hexdigest(),
            modified_at=_time(before),
            version=ObjectVersion(version.bucket, version.key, there.version_id),
        )

    def read(self, bucket: str, key: str) -> bytes:
        """The bytes at a key now. Raises ObjectGoneError."""
        descriptor, found = self._open(bucket, key)
        try:
            return self._call(location(bucket, key), lambda: _read_all(descriptor, found.st_size))
        finally:
            self._close(descriptor)

    def read_first_byte(self, version: ObjectVersion) -> None:
        """One byte, to see whether the file system answers."""
        descriptor, _ = self._open(version.bucket, version.key)
        try:
            self._call(_name(version), lambda: os.read(descriptor, 1))
        finally:
            self._close(descriptor)

    def read_start(self, bucket: str, key: str, count: int) -> bytes:
        """The first ``count`` bytes of a file, to see what it is."""
        descriptor, _ = self._open(bucket, key)
        try:
            return self._call(location(bucket, key), lambda: os.read(descriptor, count))
        finally:
            self._close(descriptor)

    def check_bucket(self, bucket: str) -> None:
        """Raise unless the folder is there and can be listed."""
        folder = folder_of(bucket)
        try:
            self._call(folder, lambda: os.scandir(folder).close())
        except ObjectGoneError as error:
            raise DependencyDownError(f"{folder} is not there: is it mounted?") from error

    def put(
        self,
        bucket: str,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/octet-stream",
        only_if_absent: bool = False,
    ) -> bool:
        """Write a file, whole or not at all; False if ``only_if_absent`` and one is there.

        content_type: ignored by a file system.
        """
        path = self._path(bucket, key)
        beside = f"{path}.{uuid4().hex[:8]}.part"
        with _translated(location(bucket, key)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            try:
                Path(beside).write_bytes(body)
                if not only_if_absent:
                    Path(beside).replace(path)
                    return True
                try:
                    os.link(beside, path)
                except FileExistsError:
                    return False
                return True
            finally:
                with suppress(OSError):
                    Path(beside).unlink()

    def delete(self, bucket: str, key: str, *, version_id: str | None = None) -> None:
        """Delete a file; a missing one is not an error. version_id: there is only one."""
        with _translated(location(bucket, key)):
            Path(self._path(bucket, key)).unlink(missing_ok=True)

    def _walk(
        self, root: str, folder: str, below: str, *, walked: Walked, prefix: str, after: str
    ) -> Iterator[ListedObject]:
        try:
            entries = self._call(folder, lambda: _entries(root, folder, walked))
        except (PermanentError, TransientError, AccessDeniedError) as error:
            if folder == root:
                raise
            walked.unreadable.append(f"{text_of(os.fsencode(folder))}: {error}")
            return
        for name, is_folder, path in entries:
            key = f"{below}{name}"
            if is_folder:
                beyond = not key.startswith(prefix) and not prefix.startswith(key)
                done = after.encode() > key.encode() and not after.startswith(key)
                if not beyond and not done:
                    yield from self._walk(
                        root, path, key, walked=walked, prefix=prefix, after=after
                    )
            elif key.startswith(prefix) and key.encode() > after.encode():
                found = self._lstat(path)
                if found is not None and stat.S_ISREG(found.st_mode):
                    yield ListedObject(key, _listed(found), is_latest=True)

    def _lstat(self, path: str) -> os.stat_result | None:
        try:
            return self._call(path, lambda: Path(path).stat())
        except ObjectGoneError:
            return None  # it vanished since its folder was listed

    def _stat(self, bucket: str, key: str) -> os.stat_result | None:
        path = self._path(bucket, key)
        found = self._lstat(path)
        return found if found is not None and stat.S_ISREG(found.st_mode) else None

    def _open(self, bucket: str, key: str) -> tuple[int, os.stat_result]:
        where, path = location(bucket, key), self._path(bucket, key)
        descriptor, found = self._call(where, lambda: _opened(path))
        if not stat.S_ISREG(found.st_mode):
            self._close(descriptor)
            raise PermanentError("unreadable", f"{where} is not a regular file")
        return descriptor, found

    def _close(self, descriptor: int) -> None:
        """Even this may hang; the file was only read, so nothing depends on it."""
        with suppress(PixsiftError):
            self._call("close", lambda: os.close(descriptor))

    def _path(self, bucket: str, key: str) -> str:
        """The path of a key. Raises PermanentError where it leads out of the bucket's folder."""
        path, folder = path_in(bucket, key), folder_of(bucket)
        root, inside = self._call(path, lambda: (os.path.realpath(folder), os.path.realpath(path)))
        if not key or not inside.startswith(root.rstrip("/") + "/"):
            raise PermanentError("unreadable", f"{location(bucket, key)} leads out of its folder")
        return path

    def _call(self, where: str, work: Callable[[], T]) -> T:
        with _translated(where):
            return self._patience.call(where, work)


def _opened(path: str) -> tuple[int, os.stat_result]:
    descriptor = os.open(path, _ONLY_READ)
    try:
        return descriptor, os.fstat(descriptor)
    except OSError:
        os.close(descriptor)
        raise


def _entries(root: str, folder: str, walked: Walked) -> list[tuple[str, bool, str]]:
    """Name (of a folder with a slash), whether it is a folder, path: in the order of keys."""
    found = []
    with os.scandir(os.fsencode(folder)) as entries:
        for entry in entries:
            name, path = text_of(entry.name), os.fsdecode(entry.path)
            if entry.is_symlink():
                target = os.path.realpath(path)
                if not Path(target).is_file() or not target.startswith(root.rstrip("/") + "/"):
                    walked.links += 1
                    continue
                found.append((name, False, path))
            elif entry.is_dir():
                if name.startswith("."):
                    walked.hidden += 1
                else:
                    found.append((name + "/", True, path))
            elif entry.is_file():
                found.append((name, False, path))
            else:
                walked.special += 1
    return sorted(found, key=lambda each: each[0].encode())


def _read_all(descriptor: int, size: int) -> bytes:
    parts = []
    left = size + 1  # one more, to notice that the file has grown
    while left > 0 and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _version(found: os.stat_result) -> FileVersion:
    return FileVersion(found.st_size, found.st_mtime_ns)


def _listed(found: os.stat_result) -> ListedVersion:
    return ListedVersion(
        _version(found).version_id, size_bytes=found.st_size, modified_at=_time(found)
    )


def _time(found: os.stat_result) -> datetime | None:
    try:
        return datetime.fromtimestamp(found.st_mtime, UTC)
    except (ValueError, OverflowError, OSError):
        return None  # a clock that was never set


def _name(version: ObjectVersion) -> str:
    return location(version.bucket, version.key)


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """Translate errors of the operating system, by the reaction that they ask for."""
    try:
        yield
    except OSError as error:
        message = f"{where}: {error.strerror}"
        if error.errno in _GONE:
            raise ObjectGoneError("deleted", where) from error
        if error.errno in _DENIED:
            raise AccessDeniedError(message) from error
        if error.errno in (*_FULL, *_DOWN):
            raise DependencyDownError(message) from error
        raise PermanentError("unreadable", message) from error
