"""The queries of an export stay in reach on a large snapshot with a past."""

import time
from hashlib import sha256

import psycopg

from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.adapters.postgres.database import Database

IMAGES = 20_000
SEED = """
INSERT INTO model VALUES ('s', 'stub', '', '', 'px1-224', 'gap', 4);
INSERT INTO collection (name, sources, space_id, epsilon, seq) VALUES ('c', '[]', 's', 0.1, 9);
INSERT INTO generation VALUES (1, 1, 0.1, NULL, 'current');
INSERT INTO object (bucket, key, version_id, size_bytes, content_sha256, pixel_sha256)
  SELECT 'raw', 'r/' || n, 'v', n, sha256(n::text::bytea), sha256(n::text::bytea)
    FROM generate_series(1, 2 * {n}) n;
INSERT INTO attribute SELECT 1, n, 'key', jsonb_build_object('robot', 'old'), 1, 5
    FROM generate_series(1, {n}) n;
INSERT INTO attribute SELECT 1, n, 'key', jsonb_build_object('robot', 'r' || n % 7), 5, NULL
    FROM generate_series(1, {n}) n;
INSERT INTO attribute SELECT 1, n, 'sidecar', jsonb_build_object('site', 'north'), 5, NULL
    FROM generate_series(1, {n}, 2) n;
INSERT INTO decision (collection_id, generation, object_id, outcome, reason,
                      representative_object_id, distance, valid_from_seq, valid_to_seq)
  SELECT 1, 1, {n} + n, 'duplicate', 'near', n, 0.01, 2, NULLIF(n % 3, 0) + 6
    FROM generate_series(1, {n}) n;
UPDATE attribute SET attributes = attributes || '{{"robot": null}}'
 WHERE source = 'sidecar' AND object_id = 3;
INSERT INTO decision (collection_id, generation, object_id, outcome, reason, pixel_sha256,
                      valid_from_seq)
  SELECT 1, 1, n, 'kept', 'new', sha256(('s' || n)::bytea), 1 FROM generate_series(1, {n}) n;
INSERT INTO embedding
  SELECT 's', sha256(('s' || n)::bytea), '[1,0,0,0]' FROM generate_series(1, {n}) n;
INSERT INTO snapshot (snapshot_id, collection_id, generation, request_id, name, request, spec_hash,
                      seed, at_seq, state)
  VALUES ('x', 1, 1, 'r', 'n', '{{}}', 'h', 0, 7, 'copying');
INSERT INTO snapshot_item (snapshot_id, rank, object_id, split, destination_key)
  SELECT 'x', n - 1, n, 'train', 'data/train/r/' || n FROM generate_series(1, {n}) n;
"""


def test_manifest_rows__a_large_snapshot_is_read_in_seconds(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(SEED.format(n=IMAGES).encode())
    with Database(database_url) as database:
        started = time.monotonic()
        rows = Snapshots(database).manifest_rows("x")
        seconds = time.monotonic() - started
    assert len(rows) == IMAGES
    assert rows[0].attributes == {"robot": "r1", "site": "north"}
    assert rows[1].attributes == {"robot": "r2"}
    assert rows[2].attributes == {"site": "north"}  # a sidecar took the robot away
    assert rows[0].pixel_sha256 == sha256(b"s1").hexdigest()  # by the recipe of its space
    # Valid at 7: those that were never closed (n % 3 = 0) and those closed at 8, not at 7.
    assert [row.duplicates for row in rows[:3]] == [0, 1, 1]
    assert seconds < 60  # a scan of the attributes per image would be far beyond
