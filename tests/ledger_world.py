"""A ledger with one collection, and images made of vectors, for tests of the decision."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.adapters.postgres.database import Database
from pixsift.core.collection import Collection
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import Finding, Judged
from pixsift.core.sources import SourceRule
from pixsift.messages import SnapshotRequest
from pixsift.operations.resolve import resolve
from pixsift.ports import EmbeddingSpace

DIMENSION = 16
EPSILON = 0.05


def space(dimension: int = DIMENSION) -> EmbeddingSpace:
    """A space for vectors that no model made."""
    return EmbeddingSpace("stub", "1", "00", "px1-224", "none", dimension)


@contextmanager
def ledger_of(url: str, **options: Any) -> Iterator[Ledger]:
    """A ledger and its pool."""
    with Database(url, max_connections=options.pop("max_connections", 4)) as database:
        yield Ledger(database, **options)


def new_collection(
    ledger: Ledger, name: str = "c", dimension: int = DIMENSION, **options: Any
) -> Collection:
    """A collection over the bucket ``raw``."""
    kind = space(dimension)
    ledger.ensure_space(kind)
    return ledger.create_collection(
        name, **{
            "sources": [SourceRule("raw")], "space_id": kind.space_id, "epsilon": EPSILON, **options
        }
    )  # fmt: skip


def unit(*values: float, dimension: int = DIMENSION) -> NDArray[np.float16]:
    """The unit vector along ``values``, padded with zeros."""
    vector = np.zeros(dimension)
    vector[: len(values)] = values
    return (vector / np.linalg.norm(vector)).astype(np.float16)


def turned(degrees: float, dimension: int = DIMENSION) -> NDArray[np.float16]:
    """A unit vector in the plane of the first two axes; epsilon 0.05 is 18.2 degrees."""
    angle = np.radians(degrees)
    return unit(float(np.cos(angle)), float(np.sin(angle)), dimension=dimension)


def image(
    key: str,
    vector: NDArray[np.float16],
    *,
    content: str | None = None,
    pixels: str | None = None,
    version: str = "v1",
    **facts: Any,
) -> Judged:
    """An embedded image; its bytes and pixels are its own unless named."""
    return Judged(
        ObjectVersion("raw", key, version), "embedded",
        content_sha256=digest(content or f"{key}@{version}"),
        pixel_sha256=digest("px" + (pixels or content or f"{key}@{version}")),
        embedding=vector, **facts,
    )  # fmt: skip


def finding(key: str, kind: Finding, reason: str = "", version: str = "v1") -> Judged:
    """A version that is gone, rejected or failed."""
    return Judged(ObjectVersion("raw", key, version), kind, reason)


def digest(text: str) -> bytes:
    """32 bytes."""
    return hashlib.sha256(text.encode()).digest()


def rows(url: str, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """What the database says."""
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode(), arguments).fetchall()


def outcomes(url: str) -> dict[str, tuple[str, str, str | None]]:
    """Key@version -> open outcome, reason, representative's key, in the current generation."""
    found = rows(
        url,
        "SELECT o.key, o.version_id, d.outcome, d.reason, r.key FROM decision d"
        " JOIN object o USING (object_id)"
        " JOIN collection c USING (collection_id, generation)"
        " LEFT JOIN object r ON r.object_id = d.representative_object_id"
        " WHERE d.valid_to_seq IS NULL",
    )
    return {f"{key}@{version}": (a, b, c) for key, version, a, b, c in found}


def snapshot_of(database: Database, asked: SnapshotRequest) -> str:
    """The id of the snapshot that answers a request; its list is stored."""
    taken = Snapshots(database).take(
        request_id=asked.request_id, collection=asked.collection, at_seq=None,
        body=asked.model_dump(mode="json", by_alias=True),
    )  # fmt: skip
    assert taken is not None
    return resolve(database, taken, asked, spill_dir=None)


def keys(judged: Sequence[Judged]) -> list[str]:
    """Their keys."""
    return [item.version.key for item in judged]
