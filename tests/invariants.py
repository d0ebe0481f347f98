"""Checks a whole ledger against its promises by brute force, without the product's search."""

from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from pixsift.adapters.postgres import halfvec

_OPEN = (
    " JOIN collection c USING (collection_id, generation) WHERE c.name = %s"
    " AND {0}.valid_to_seq IS NULL"
)


def violations(url: str, collection: str = "c") -> list[str]:
    """What is broken in the current generation; empty when all promises hold."""
    with psycopg.connect(url) as connection:
        ask = connection.cursor(binary=True)
        kept = ask.execute(
            "SELECT r.object_id, r.content_sha256, r.pixel_sha256, e.embedding, r.valid_from_seq"
            " FROM representative r JOIN embedding e USING (space_id, pixel_sha256)"
            + _OPEN.format("r"),
            (collection,),
        ).fetchall()
        decided = ask.execute(
            "SELECT d.object_id, d.outcome, d.reason, d.representative_object_id, d.distance,"
            " e.embedding FROM decision d"
            " LEFT JOIN embedding e ON e.pixel_sha256 = d.pixel_sha256 AND e.space_id ="
            " (SELECT space_id FROM collection WHERE name = %s)" + _OPEN.format("d"),
            (collection, collection),
        ).fetchall()
        epsilon, seq = ask.execute(
            "SELECT epsilon, seq FROM collection WHERE name = %s", (collection,)
        ).fetchone() or (0.0, 0)
        seqs = ask.execute(
            "SELECT v.seq FROM collection c, LATERAL ("
            " SELECT valid_from_seq AS seq FROM decision WHERE collection_id = c.collection_id"
            " UNION SELECT valid_to_seq FROM decision WHERE collection_id = c.collection_id"
            " UNION SELECT valid_from_seq FROM attribute WHERE collection_id = c.collection_id"
            " UNION SELECT valid_to_seq FROM attribute WHERE collection_id = c.collection_id"
            " UNION SELECT valid_from_seq FROM ruling WHERE collection_id = c.collection_id"
            " UNION SELECT valid_to_seq FROM ruling WHERE collection_id = c.collection_id"
            " UNION SELECT switched_at_seq FROM generation WHERE collection_id = c.collection_id"
            ") v WHERE c.name = %s AND v.seq IS NOT NULL",
            (collection,),
        ).fetchall()
        said = ask.execute(
            "SELECT r.kind, r.object_id, r.other_object_id FROM ruling r"
            " JOIN collection c USING (collection_id) WHERE c.name = %s"
            " AND r.valid_to_seq IS NULL",
            (collection,),
        ).fetchall()
        turns = ask.execute(
            "SELECT t.seq FROM turn t JOIN collection c USING (collection_id) WHERE c.name = %s",
            (collection,),
        ).fetchall()
    vectors = {row[0]: _wide(row[3]) for row in kept}
    return [
        *_kept_pairs(vectors, epsilon, said),
        *_repeated("content", [row[1] for row in kept]),
        *_repeated("pixels", [row[2] for row in kept]),
        *_repeated("object", [row[0] for row in decided]),
        *_duplicates(decided, vectors, epsilon),
        *_representation(decided, vectors),
        *([] if {s for (s,) in seqs} == set(range(1, seq + 1)) else ["seq is not dense"]),
        *([] if {s for (s,) in turns} == set(range(seq + 1)) else ["turns are not dense"]),
    ]


def _wide(data: bytes) -> NDArray[np.float64]:
    vector = halfvec.unpack(data).astype(np.float64)
    return vector / np.sqrt(vector @ vector)


def _kept_pairs(
    vectors: dict[int, NDArray[np.float64]], epsilon: float, said: list[tuple[Any, ...]]
) -> list[str]:
    """Kept images within the rule of each other, unless a ruling keeps both."""
    if not vectors:
        return []
    also = {row[1] for row in said if row[0] == "also_keep"}
    chosen = {row[1] for row in said if row[0] == "choose"}
    apart = {frozenset(row[1:]) for row in said if row[0] == "not_same"}
    ids, matrix = list(vectors), np.stack(list(vectors.values()))
    found = []
    for start in range(0, len(ids), 2048):
        distances = 1.0 - matrix[start : start + 2048] @ matrix.T
        for i, j in zip(*np.nonzero(distances <= epsilon - 1e-9), strict=True):
            pair = {ids[start + i], ids[j]}
            if start + i < j and not (pair & also or pair <= chosen or pair in apart):
                found.append(f"kept {ids[start + i]} and {ids[j]} at {distances[i, j]:.4f}")
    return found


def _repeated(what: str, values: list[Any]) -> list[str]:
    return [] if len(set(values)) == len(values) else [f"{what} occurs twice"]


def _duplicates(
    decided: list[tuple[Any, ...]], kept: dict[int, NDArray[np.float64]], epsilon: float
) -> list[str]:
    found = []
    for object_id, outcome, reason, representative, distance, data in decided:
        if outcome != "duplicate":
            continue
        if representative not in kept:
            found.append(f"{object_id} is a duplicate of {representative}, which is not kept")
        elif reason.startswith("near"):
            true = float(1.0 - _wide(data) @ kept[representative])
            if distance > epsilon or abs(true - distance) > 1e-9:
                found.append(f"{object_id}: distance {distance} is really {true}")
    return found


def _representation(
    decided: list[tuple[Any, ...]], kept: dict[int, NDArray[np.float64]]
) -> list[str]:
    keeps = {row[0] for row in decided if row[1] == "kept"}
    return [] if keeps == set(kept) else ["kept outcomes and representatives differ"]
