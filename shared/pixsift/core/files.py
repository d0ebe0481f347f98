"""How the ledger names the files of a folder: bucket, key and version. Pure.

The bucket is the folder's ``file://`` URI, the key the path below it with slashes. The ledger holds
text, but file names are bytes: a byte that is not UTF-8 becomes ``\\xNN``, and so does a backslash
that would look like such a code, so that the text can be turned back. The version is the file's
size, the time of its last change and the hash of its bytes; a file that was only listed has no hash
yet.
"""

import os
import re
from dataclasses import dataclass

from pixsift.core.identity import FILE_VERSION, FOLDER, ObjectVersion, S3Uri

_HASH_DIGITS = 32
"""128 bits of SHA-256: no two files with the same can be made."""
_VERSION = re.compile(rf"{FILE_VERSION}(\d+)-(-?\d+)(?:-([0-9a-f]{{{_HASH_DIGITS}}}))?")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class FileVersion:
    """Identifies one state of a file."""

    size_bytes: int
    modified_ns: int
    content: str = ""
    """The first 32 hex digits of the SHA-256; "" where the file has only been listed."""

    @classmethod
    def parse(cls, version_id: str) -> "FileVersion | None":
        """None for the version id of something else."""
        match = _VERSION.fullmatch(version_id)
        return cls(int(match[1]), int(match[2]), match[3] or "") if match else None

    @property
    def version_id(self) -> str:
        """As the ledger stores it: ``file:<size>-<time in ns>-<hash>``."""
        listed = f"{FILE_VERSION}{self.size_bytes}-{self.modified_ns}"
        return f"{listed}-{self.content}" if self.content else listed

    def with_content(self, sha256: bytes) -> "FileVersion":
        """Now that its bytes were read. sha256: 32 bytes."""
        return FileVersion(self.size_bytes, self.modified_ns, sha256.hex()[:_HASH_DIGITS])

    def is_same_write(self, other: "FileVersion") -> bool:
        """Whether size and time agree, and the content as far as both know it."""
        known = self.content and other.content
        return (self.size_bytes, self.modified_ns) == (other.size_bytes, other.modified_ns) and (
            not known or self.content == other.content
        )


def folder_bucket(folder: str) -> str:
    """The bucket of a folder's files. folder: absolute, without a slash at its end."""
    return FOLDER + text_of(os.fsencode(folder))


def folder_of(bucket: str) -> str:
    """The folder of a bucket, as the operating system takes it. Raises ValueError for another."""
    if not bucket.startswith(FOLDER):
        raise ValueError(f"{bucket!r} is not the bucket of a folder")
    return os.fsdecode(bytes_of(bucket.removeprefix(FOLDER)))


def path_of(version: ObjectVersion) -> str:
    """The path of a folder's object."""
    return path_in(version.bucket, version.key)


def path_in(bucket: str, key: str) -> str:
    """The path of ``key`` below the folder of ``bucket``."""
    return f"{folder_of(bucket)}/{os.fsdecode(bytes_of(key))}"


def shown(uri: str) -> str:
    """An object's URI as people know it: of a file its path, without the version."""
    if not uri.startswith(FOLDER):
        return uri
    found = S3Uri.parse(uri)
    return f"{found.bucket.removeprefix(FOLDER)}/{found.key}"


def text_of(name: bytes) -> str:
    """A path as the ledger holds it."""
    plain = name.replace(rb"\x", rb"\x5cx")
    return "".join(
        f"\\x{ord(char) - 0xDC00:02x}" if 0xDC80 <= ord(char) <= 0xDCFF else char
        for char in plain.decode("utf-8", "surrogateescape")
    )


def bytes_of(text: str) -> bytes:
    """The path behind such a text: ``bytes_of(text_of(name)) == name``."""
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), text.encode())
