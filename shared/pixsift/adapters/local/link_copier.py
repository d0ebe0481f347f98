"""Brings chosen files of a folder into another one: as hard links, copies or symbolic links.

See ``ports.Copier``. Only the exact version listed: its size and time are looked at after the link
is made, and the bytes of a copy are those of the hash. A hard link that the file system refuses
(another disk) becomes a copy.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Literal
from uuid import uuid4

from pixsift.adapters.local.folder_objects import FolderObjects
from pixsift.core.copyplan import CopyItem
from pixsift.core.files import path_of
from pixsift.errors import ObjectGoneError, Remedy, RequestError
from pixsift.ports import CopyResult

LinkMode = Literal["hard", "copy", "symbolic"]


class LinkCopier:
    """Fills ``folder``. Not thread-safe."""

    def __init__(self, objects: FolderObjects, folder: Path, mode: LinkMode) -> None:
        self._objects = objects
        self._folder = folder
        self._mode = mode
        self.copied = 0
        """Files that were copied, by wish or because no link was possible."""

    def copy(self, items: Sequence[CopyItem], *, prefix: str, stop: Event) -> Iterator[CopyResult]:
        """See ``pixsift.ports.Copier``; in the order of ``items``."""
        for item in items:
            if stop.is_set():
                return
            try:
                self._bring(item, self._folder / (prefix + item.destination_key))
            except ObjectGoneError as gone:
                failure = "source_changed" if gone.reason == "overwritten" else "source_missing"
                yield CopyResult(item, "", failure, item.source.uri)
            else:
                yield CopyResult(item, f"sha256:{item.content_sha256.hex()}")

    def _bring(self, item: CopyItem, target: Path) -> None:
        source = path_of(item.source)
        head = self._objects.head(item.source.bucket, item.source.key, version=item.source)
        if head is None:
            raise ObjectGoneError("overwritten", item.source.uri)
        beside = target.with_name(f"{uuid4().hex[:12]}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._make(item, source, beside)
            beside.replace(target)
            # A rename onto another link of the same file does nothing, and both stay.
            beside.unlink(missing_ok=True)
        except OSError as error:
            raise RequestError(
                f"cannot write {str(target)!r}: {error.strerror}", remedy=Remedy("name_output")
            ) from error

    def _make(self, item: CopyItem, source: str, beside: Path) -> None:
        if self._mode == "symbolic":
            beside.symlink_to(source)
            return
        if self._mode == "hard":
            try:
                os.link(os.path.realpath(source), beside)
            except OSError:
                pass  # another file system, or one without links: copied below
            else:
                return
        beside.write_bytes(self._objects.get(item.source))
        self.copied += 1
