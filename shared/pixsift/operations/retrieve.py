"""Helpers of a search by files: the collection that is meant, and the vectors of files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.postgres.database import Database
from pixsift.core.collection import Collection
from pixsift.core.images import DecodedImage, DecodeFailure
from pixsift.errors import Remedy, RequestError
from pixsift.operations.paths import collection_name
from pixsift.ports import Embedder

_DECODE_AT_ONCE = 32


def only_collection(database: Database, name: str | None) -> Collection:
    """The collection of that name or folder; without one, ``default``, or the only one there is.

    Raises NotFoundError for an unknown name, RequestError where there is none to take.
    """
    ledger = Collections(database)
    every = ledger.collections()
    if name is not None:
        named = [found for found in every if found.name == name]
        return named[0] if named else ledger.collection(collection_name(database, name))
    default = [found for found in every if found.name == "default"]
    if default:
        return default[0]
    if len(every) != 1:
        names = ", ".join(found.name for found in every) or "none"
        raise RequestError(f"several collections exist: {names}", remedy=Remedy("name_collection"))
    return every[0]


def embed_files(
    files: Sequence[Path], embedder: Embedder
) -> tuple[NDArray[np.float32], list[Path], dict[str, str]]:
    """Embeddings of the files that are images, (Q, D); those files; why the others are not.

    Decoded in isolated processes by the recipe that judges uploads. Raises RequestError when no
    file is an image.
    """
    parts: list[NDArray[np.float32]] = []
    embedded: list[Path] = []
    failures: dict[str, str] = {}
    with DecoderPool(embedder.input_side) as decoder:
        for start in range(0, len(files), _DECODE_AT_ONCE):
            some = files[start : start + _DECODE_AT_ONCE]
            decoded: list[tuple[Path, DecodedImage]] = []
            blobs = _read(some, failures)
            for path, image in zip(blobs, decoder.decode(list(blobs.values())), strict=True):
                if isinstance(image, DecodeFailure):
                    failures[str(path)] = image.reason
                else:
                    decoded.append((path, image))
            if not decoded:
                continue
            result = embedder.embed([found.model_input for _, found in decoded])
            parts.append(result.embeddings)
            embedded += [decoded[index][0] for index in result.kept_indices]
            failures |= {str(decoded[i][0]): reason for i, reason in result.failures.items()}
    if not embedded:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in list(failures.items())[:3])
        raise RequestError(f"none of {len(files)} files is an image pixsift can read: {reasons}")
    return np.concatenate(parts), embedded, failures


def _read(paths: Sequence[Path], failures: dict[str, str]) -> dict[Path, bytes]:
    """The bytes of each; why others cannot be read goes into ``failures``."""
    found = {}
    for path in paths:
        try:
            found[path] = path.read_bytes()
        except OSError as error:
            failures[str(path)] = f"unreadable: {error.strerror}"
    return found
