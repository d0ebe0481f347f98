"""Hashes that an erasure leaves behind: they recognize a repeated event or upload, and reveal
nothing else.

Two marks per erased object: one of the object version (a late or repeated event of it) and one of
its bytes (the same image uploaded again under any key). Other bytes under the same key are a new
image and are judged as usual.
"""

import hashlib

from pixsift.core.identity import ObjectVersion


def version_mark(salt: bytes, version: ObjectVersion) -> bytes:
    """32 bytes for ``tombstone.key_hash``; the parts are length-prefixed, so none can run over."""
    digest = hashlib.sha256(salt)
    for part in (version.bucket, version.key, version.version_id):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.digest()


def content_mark(salt: bytes, content_sha256: bytes) -> bytes:
    """32 bytes for ``tombstone.content_hash``."""
    return hashlib.sha256(salt + content_sha256).digest()
