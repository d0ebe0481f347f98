"""The interfaces between layers, each with two real implementations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event
from typing import Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pixsift.core.copyplan import CopyItem
from pixsift.core.identity import ListedVersion, ObjectVersion
from pixsift.core.images import Pixels

Embeddings = NDArray[np.float32]
"""(N, D) float32, rows of unit length."""

CountProgress = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Called with the number of things to do; returns a context whose function gets how many more are
done. An entry point decides how to show it."""


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """What makes vectors comparable; vectors of different spaces are never compared."""

    model: str
    """Name as the user gave it: ``efficientnet-lite0``, ``facebook/dinov2-base``."""
    revision: str
    """Hub commit, package version, or ``local``."""
    weights_sha256: str
    """Hex digest over the weight files."""
    recipe_id: str
    """Decode and preprocessing recipe, e.g. ``px1-224``; a new recipe is a new space."""
    pooling: str
    """``cls``, ``mean``, ``gap``."""
    dimension: int

    @property
    def space_id(self) -> str:
        """A stable id of all of the above: 16 hex digits."""
        import hashlib

        text = "\n".join(
            (self.model, self.revision, self.weights_sha256, self.recipe_id, self.pooling,
             str(self.dimension))
        )  # fmt: skip
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingResult:
    """Embeddings of a batch; a broken image never fails its batch."""

    embeddings: Embeddings
    """(M, D) for the M inputs that survived."""
    kept_indices: NDArray[np.intp]
    """(M,) which inputs the rows belong to, ascending."""
    failures: dict[int, str]
    """Input index -> reason code (``embed_nonfinite``, ``embed_zero``) of the others."""


class Embedder(Protocol):
    """Pixels to unit vectors. Implementations: DINOv2, EfficientNet-Lite0, stub."""

    @property
    def space(self) -> EmbeddingSpace: ...

    @property
    def input_side(self) -> int:
        """Side of the square the decoder resizes to, in pixels."""
        ...

    @property
    def batch_size(self) -> int:
        """The largest batch worth sending at once."""
        ...

    def embed(self, images: Sequence[Pixels]) -> EmbeddingResult:
        """images: each (S, S, 3) uint8 with S = ``input_side``."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Neighborhood:
    """What a search of a collection found, and up to which point it saw everything."""

    watermark: int
    """Every representative valid at this seq was searched; what is newer may be missing."""
    generation: int
    """The generation that was searched."""
    token: UUID
    """Of the watermark's turn: the history that was searched, proved again under the lock."""
    object_ids: tuple[NDArray[np.int64], ...]
    """Per query: every representative within the distance (a few beyond it or already removed are
    allowed: the ledger checks each candidate)."""


class NeighborSearch(Protocol):
    """Representatives near a query. Implementations: resident (exact), pgvector (HNSW)."""

    def within(
        self, collection_id: int, queries: NDArray[np.float16], max_distance: float
    ) -> Neighborhood:
        """queries: (M, D) float16 as stored; max_distance: cosine distance, included.

        The watermark is read before anything is searched.
        """
        ...


@dataclass(frozen=True, slots=True)
class CopyResult:
    """The result of one item of a copy plan."""

    item: CopyItem
    checksum: str
    """``sha256:<hex>`` of the new object as S3 computed it, ``etag:<etag>`` where it computes
    none, "" after a failure."""
    failure: str = ""
    """``source_missing``, ``source_changed``, ``checksum_mismatch``, ``size_mismatch``, or ""."""
    detail: str = ""


class Copier(Protocol):
    """Carries out a copy plan at the store of the objects. Implementations: S3 server-side, links
    or copies of files."""

    def copy(self, items: Sequence[CopyItem], *, prefix: str, stop: Event) -> Iterator[CopyResult]:
        """Copy each item to ``prefix`` + its destination key; results as they come, in any order.

        Only exact versions, verified. Ends early, with fewer results, once ``stop`` is set. A
        source that is gone or changed is a result; TransientError and DependencyDownError are
        raised, after the copies in flight have been given their results.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FetchedObject:
    """The bytes of one object version and what the store says about them."""

    body: bytes
    etag: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    """User metadata (``x-amz-meta-*``), names in lower case."""
    modified_at: datetime | None = None
    """The store's own time of the write."""
    version: ObjectVersion | None = None
    """Which version these bytes are, where that is known only after reading; else None."""


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """What a store says about an object without its bytes."""

    version_id: str | None
    etag: str
    size_bytes: int
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One line of a listing of versions under a prefix."""

    key: str
    version: ListedVersion
    is_latest: bool


class ObjectStore(Protocol):
    """A store of objects. Implementations: S3, folders of this machine. Thread-safe.

    A bucket of a folder is its ``file://`` URI. Every method may raise TransientError,
    AccessDeniedError or DependencyDownError.
    """

    def iter_versions(
        self, bucket: str, prefix: str = "", *, after: str = ""
    ) -> Iterator[ListedObject]:
        """Versions and delete markers under ``prefix``, of the keys behind ``after``: by key in
        the order of its UTF-8 bytes, then newest first."""
        ...

    def list_versions(self, bucket: str, key: str) -> list[ListedVersion]:
        """All versions and delete markers of one key, newest first."""
        ...

    def head(
        self, bucket: str, key: str, *, version: ObjectVersion | None = None
    ) -> ObjectHead | None:
        """What is at ``key`` now, or about one version; None where there is nothing."""
        ...

    def fetch(
        self,
        version: ObjectVersion,
        *,
        max_bytes: int | None = None,
        reserve: Callable[[int], None] | None = None,
    ) -> FetchedObject:
        """One object version, whole.

        ``reserve`` is called with the size before the body is read, and may block until there is
        room. Raises ObjectGoneError, or PermanentError ``too_large`` or ``unreadable``.
        """
        ...

    def get(self, version: ObjectVersion) -> bytes:
        """The bytes of one object version; errors as for ``fetch``."""
        ...

    def read(self, bucket: str, key: str) -> bytes:
        """The bytes at a key now, for what pixsift wrote itself and never changes. Raises
        ObjectGoneError."""
        ...

    def read_first_byte(self, version: ObjectVersion) -> None:
        """Ask for one byte of a version, to see whether the store answers. Raises as ``fetch``."""
        ...

    def check_bucket(self, bucket: str) -> None:
        """Raise DependencyDownError or TransientError unless ``bucket`` answers and lets us in."""
        ...

    def put(
        self,
        bucket: str,
        key: str,
        body: bytes,
        *,
        content_type: str = "application/octet-stream",
        only_if_absent: bool = False,
    ) -> bool:
        """Write an object, whole or not at all; False if ``only_if_absent`` and one is there."""
        ...

    def delete(self, bucket: str, key: str, *, version_id: str | None = None) -> None:
        """Delete an object; a missing one is not an error."""
        ...
