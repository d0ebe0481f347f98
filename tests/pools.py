"""A small ledger by plain inserts, and pools without one: what the tests of choosing start from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from pixsift.core.choosing.pool import Column, Facts, Pool
from pixsift.core.choosing.rows import ArrayRows


def unit_rows(
    count: int, dimension: int, *, seed: int = 0, centers: int = 0
) -> NDArray[np.float16]:
    """(N, D) float16 rows of about unit length, around some centers or all over the sphere."""
    rng = np.random.default_rng(seed)
    rows: NDArray[np.float64] = rng.normal(size=(count, dimension))
    if centers:
        rows = 0.3 * rows + rng.normal(size=(centers, dimension))[rng.integers(centers, size=count)]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows, dtype=np.float16)


def make_pool(
    rows: NDArray[np.floating], attributes: Mapping[str, Sequence[str | None]] | None = None
) -> Pool:
    """A pool of an array; object ids are 100, 101, ..."""
    ids = np.arange(100, 100 + len(rows), dtype=np.int64)
    columns = {name: column(values) for name, values in (attributes or {}).items()}
    facts = Facts(ids, columns, {}, np.full(len(rows), np.nan), np.zeros(len(rows), bool))
    return Pool(facts, ArrayRows(rows), np.ones(len(rows), dtype=bool))


def column(values: Sequence[str | None]) -> Column:
    """An attribute column of a list of values."""
    distinct = sorted({value for value in values if value is not None})
    codes = [-1 if value is None else distinct.index(value) for value in values]
    return Column(np.array(codes, dtype=np.int32), tuple(distinct))


@dataclass
class LedgerOfRows:
    """Writes one collection of kept images, each at a seq of its own, by plain SQL."""

    database_url: str
    dimension: int
    space_id: str = "space-1"
    collection_id: int = 0
    seq: int = 0
    object_ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        with psycopg.connect(self.database_url) as connection:
            connection.execute(
                "INSERT INTO model VALUES (%s, 'stub', '', '', 'px1-8', 'gap', %s)"
                " ON CONFLICT DO NOTHING",
                (self.space_id, self.dimension),
            )
            row = connection.execute(
                "INSERT INTO collection (name, sources, space_id, epsilon)"
                " VALUES ('shop', '[{\"bucket\": \"raw\"}]', %s, 0.05) RETURNING collection_id",
                (self.space_id,),
            ).fetchone()
            assert row is not None
            self.collection_id = row[0]
            connection.execute(
                "INSERT INTO generation VALUES (%s, 1, 0.05, NULL, 'current')",
                (self.collection_id,),
            )

    def keep(
        self,
        rows: NDArray[np.floating],
        *,
        prefix: str = "r1/",
        attributes: Sequence[dict[str, Any]] | None = None,
        quality: Sequence[dict[str, float]] | None = None,
        captured_at: Sequence[str | None] | None = None,
        space_id: str | None = None,
    ) -> list[int]:
        """Keep images with these embeddings; returns their object ids."""
        added = []
        with psycopg.connect(self.database_url) as connection:
            for i, row in enumerate(rows):
                self.seq += 1
                digest = sha256(f"{prefix}{self.seq}".encode()).digest()
                added.append(self._keep_one(
                    connection, row, digest, f"{prefix}{self.seq:06d}.jpg",
                    attributes=attributes[i] if attributes else {},
                    quality=quality[i] if quality else None,
                    captured_at=captured_at[i] if captured_at else None,
                    space_id=space_id or self.space_id,
                ))  # fmt: skip
            connection.execute("UPDATE collection SET seq = %s", (self.seq,))
        self.object_ids += added
        return added

    def _keep_one(
        self,
        connection: psycopg.Connection,
        row: NDArray[np.floating],
        digest: bytes,
        key: str,
        *,
        attributes: dict[str, Any],
        quality: dict[str, float] | None,
        captured_at: str | None,
        space_id: str,
    ) -> int:
        found = connection.execute(
            "INSERT INTO object (bucket, key, version_id, content_sha256, pixel_sha256, quality,"
            " captured_at) VALUES ('raw', %s, 'v1', %s, %s, %s, %s) RETURNING object_id",
            (key, digest, digest, json.dumps(quality) if quality else None, captured_at),
        ).fetchone()
        assert found is not None
        object_id: int = found[0]
        text = "[" + ",".join(str(float(value)) for value in row) + "]"
        connection.execute(
            "INSERT INTO embedding (space_id, pixel_sha256, embedding)"
            " VALUES (%s, %s, %s::halfvec)",
            (space_id, digest, text),
        )
        connection.execute(
            "INSERT INTO decision (collection_id, generation, object_id, outcome, reason,"
            " pixel_sha256, valid_from_seq) VALUES (%s, 1, %s, 'kept', 'new', %s, %s)",
            (self.collection_id, object_id, digest, self.seq),
        )
        connection.execute(
            "INSERT INTO representative VALUES (%s, 1, %s, %s, %s, %s, %s)",
            (self.collection_id, object_id, space_id, digest, digest, self.seq),
        )
        if attributes:
            connection.execute(
                "INSERT INTO attribute VALUES (%s, %s, 'key', %s, %s)",
                (self.collection_id, object_id, json.dumps(attributes), self.seq),
            )
        return object_id
