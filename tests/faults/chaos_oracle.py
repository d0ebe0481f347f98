"""What a ledger must look like after anything: judged from S3 and the rows, by nothing of pixsift.

It knows what lies in the bucket, what was deleted and what was erased, and reads the tables with
statements of its own. Vectors are unpacked and compared here, in float64, all pairs. If the product
and this agree, they do not agree because of a line that both of them use.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import psycopg
from numpy.typing import NDArray
from PIL import Image

_ROUNDING = 2e-3
"""Distances are stored and compared in half precision, whose cosine is off by less than this."""
Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Upload:
    """One object version that was written, and what it is."""

    key: str
    version_id: str
    sha256: str
    is_image: bool


@dataclass(slots=True)
class World:
    """What happened outside of the ledger."""

    uploads: dict[tuple[str, str], Upload] = field(default_factory=dict)
    gone: set[tuple[str, str]] = field(default_factory=set)
    """Versions that were deleted, or lie under a delete marker."""
    erased_bytes: set[str] = field(default_factory=set)
    """Hashes of erased bytes: an image with these bytes is gone, before and after."""
    maybe_erased: set[str] = field(default_factory=set)
    """Hashes of bytes under an erased key that the ledger may not have read before they went."""

    def add(self, key: str, version_id: str, body: bytes) -> Upload:
        """Note an upload."""
        made = Upload(key, version_id, hashlib.sha256(body).hexdigest(), _is_image(body))
        self.uploads[key, version_id] = made
        return made

    def live(self) -> list[Upload]:
        """What a collection must keep, call a duplicate or reject."""
        return [
            each for name, each in self.uploads.items()
            if name not in self.gone and each.sha256 not in self.erased_bytes
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """An open decision."""

    object_id: int
    key: str
    version_id: str
    outcome: str
    reason: str
    representative: int | None
    vector: Vector | None


def complaints(url: str, collection: str, world: World) -> list[str]:
    """What is wrong with one collection; empty when all is well."""
    with psycopg.connect(url) as connection:
        epsilon = _epsilon(connection, collection)
        rows = _rows(connection, collection)
        turns = _column(
            connection,
            "SELECT t.seq FROM turn t JOIN collection c USING (collection_id) WHERE c.name = %s"
            " ORDER BY t.seq", collection,
        )  # fmt: skip
    by_version: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        by_version[row.key, row.version_id].append(row)
    found = [
        *(f"{name} has {len(those)} open decisions" for name, those in by_version.items()
          if len(those) > 1),
        *(f"{name} was never uploaded" for name in by_version if name not in world.uploads),
        *_outcomes(by_version, world),
        *_content(rows, world),
        *_pairs(rows, epsilon),
        *_duplicates(rows, epsilon, world),
    ]  # fmt: skip
    if turns != list(range(len(turns))):
        found.append("the history has a gap")
    return [f"{collection}: {line}" for line in found]


def leftovers(url: str, world: World) -> list[str]:
    """Traces of erased bytes in any table: their hash, in hexadecimal or as bytes."""
    wanted = sorted(world.erased_bytes)
    if not wanted:
        return []
    found = []
    with psycopg.connect(url) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'public' AND data_type IN ('bytea', 'text', 'jsonb')"
        ).fetchall()
        for table, column, kind in columns:
            if kind == "bytea":
                statement = f'SELECT count(*) FROM "{table}" WHERE "{column}" = ANY (%s)'
                names: list[object] = [[bytes.fromhex(text) for text in wanted]]
            else:
                statement = (
                    f'SELECT count(*) FROM "{table}", unnest(%s::text[]) AS w (hash)'
                    f' WHERE strpos("{column}"::text, w.hash) > 0'
                )
                names = [wanted]
            row = connection.execute(statement.encode(), names).fetchone()
            if row and row[0]:
                found.append(f"{row[0]} rows of {table}.{column} hold a hash of erased bytes")
    return found


def _outcomes(by_version: Mapping[tuple[str, str], Sequence[Row]], world: World) -> Iterable[str]:
    live = {(each.key, each.version_id) for each in world.live()}
    for name, upload in world.uploads.items():
        rows = by_version.get(name, [])
        if not rows:
            if name in live:
                yield f"{name} has no outcome"
            continue  # what was gone before anybody looked may have none
        outcome = rows[0].outcome
        if upload.sha256 in world.maybe_erased - world.erased_bytes:
            allowed = {"gone", "kept", "duplicate"}
        elif name not in live:
            allowed = {"gone"}
        else:
            allowed = {"kept", "duplicate"} if upload.is_image else {"rejected"}
        if outcome not in allowed:
            yield f"{name} is {outcome} ({rows[0].reason}), not {' or '.join(sorted(allowed))}"


def _content(rows: Sequence[Row], world: World) -> Iterable[str]:
    """Of images with equal bytes one at most is kept."""
    kept = Counter(
        world.uploads[row.key, row.version_id].sha256 for row in rows
        if row.outcome == "kept" and (row.key, row.version_id) in world.uploads
    )  # fmt: skip
    return [f"{count} images of the same bytes are kept" for count in kept.values() if count > 1]


def _pairs(rows: Sequence[Row], epsilon: float) -> Iterable[str]:
    kept = [row for row in rows if row.outcome == "kept"]
    for row in kept:
        if row.vector is None:
            yield f"{row.key} is kept and has no vector"
    with_vector = [(row, row.vector) for row in kept if row.vector is not None]
    if not with_vector:
        return
    matrix = np.stack([vector for _, vector in with_vector])
    for start in range(0, len(matrix), 1024):
        near = 1.0 - matrix[start : start + 1024] @ matrix.T < epsilon - _ROUNDING
        for i, j in zip(*np.nonzero(near), strict=True):
            if start + i < j:
                a, b = with_vector[start + i][0], with_vector[j][0]
                yield f"{a.key} and {b.key} are both kept within epsilon"


def _duplicates(rows: Sequence[Row], epsilon: float, world: World) -> Iterable[str]:
    by_id = {row.object_id: row for row in rows}
    for row in rows:
        if row.outcome != "duplicate":
            continue
        of = by_id.get(row.representative or 0)
        if of is None or of.outcome != "kept":
            yield f"{row.key} is a duplicate of what is not kept"
            continue
        mine = world.uploads.get((row.key, row.version_id))
        other = world.uploads.get((of.key, of.version_id))
        if mine is not None and other is not None and mine.sha256 == other.sha256:
            continue
        if row.vector is None or of.vector is None:
            yield f"{row.key} is a duplicate without a vector to show it"
        elif 1.0 - float(row.vector @ of.vector) > epsilon + _ROUNDING:
            yield f"{row.key} is a duplicate of {of.key}, which is farther than epsilon"


def _rows(connection: psycopg.Connection, collection: str) -> list[Row]:
    found = connection.execute(
        "SELECT d.object_id, o.key, o.version_id, d.outcome, d.reason, d.representative_object_id,"
        " e.embedding::text"
        " FROM decision d JOIN object o USING (object_id)"
        " JOIN collection c ON c.collection_id = d.collection_id AND c.generation = d.generation"
        " LEFT JOIN embedding e ON e.pixel_sha256 = d.pixel_sha256 AND e.space_id = c.space_id"
        " WHERE c.name = %s AND d.valid_to_seq IS NULL",
        (collection,),
    ).fetchall()
    return [
        Row(object_id, key, version, outcome, reason, representative, _unit(text))
        for object_id, key, version, outcome, reason, representative, text in found
    ]


def _unit(text: str | None) -> Vector | None:
    if text is None:
        return None
    vector: Vector = np.array([float(part) for part in text.strip("[]").split(",")])
    unit: Vector = vector / np.sqrt(float(vector @ vector))
    return unit


def _epsilon(connection: psycopg.Connection, collection: str) -> float:
    row = connection.execute(
        "SELECT g.epsilon FROM collection c JOIN generation g USING (collection_id, generation)"
        " WHERE c.name = %s", (collection,),
    ).fetchone()  # fmt: skip
    assert row is not None, f"there is no collection {collection}"
    return float(row[0])


def _column(connection: psycopg.Connection, statement: str, *names: object) -> list[int]:
    return [row[0] for row in connection.execute(statement.encode(), names).fetchall()]


def _is_image(body: bytes) -> bool:
    try:
        with Image.open(BytesIO(body)) as picture:
            picture.load()
    except Exception:  # whatever Pillow raises
        return False
    return True
