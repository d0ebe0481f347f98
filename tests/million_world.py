"""A ledger of a million images that no camera took: written by SQL, as arrival would take hours."""

import os
import time
from multiprocessing.connection import Connection

import psycopg
from moto import mock_aws

from console_world import running
from pixsift.adapters.postgres.database import Database
from server_world import aws, parts_over

IMAGES = 1_000_000
PER_GROUP = 4
"""A kept image and its three duplicates."""
PER_TURN = 10
NAME = "million"
_FILL = """
INSERT INTO model VALUES ('s', 'stub', '1', '00', 'px1-224', 'none', 16);
INSERT INTO collection (name, sources, space_id, epsilon, seq)
VALUES ('{name}', '[{{"bucket": "raw"}}]', 's', 0.01, {n} / {turn});
INSERT INTO generation (collection_id, generation, epsilon, state) VALUES (1, 1, 0.01, 'current');
INSERT INTO turn (collection_id, seq, actor, reason)
  SELECT 1, i, 'consumer', 'arrival' FROM generate_series(1, {n} / {turn}) i;
INSERT INTO object (bucket, key, version_id, size_bytes, content_sha256, pixel_sha256, quality,
                    thumbnail_key, captured_at)
  SELECT 'raw', 'robot-' || i % 50 || '/front/' || i || '.jpg', 'v1', 50000 + i % 1000,
         sha256(i::text::bytea), sha256(i::text::bytea),
         jsonb_build_object('sharpness', (i * 7919 % 1000) / 1000.0, 'brightness', 0.5),
         't/one.webp', '2026-11-01'::timestamptz + i * interval '1 second'
    FROM generate_series(1, {n}) i;
INSERT INTO attribute (collection_id, object_id, source, attributes, valid_from_seq)
  SELECT 1, object_id, 'key',
         jsonb_build_object('robot', 'robot-' || object_id % 50, 'camera', 'front'), 1
    FROM object;
INSERT INTO embedding (space_id, pixel_sha256, embedding)
  SELECT 's', pixel_sha256,
         (SELECT array_agg((
              sin(((object_id - 1) / {group}) * (j + 1.7321) * 12.9898 + j)
              + 0.01 * sin(object_id * (j + 0.37)))::real ORDER BY j)
            FROM generate_series(1, 16) AS j)::halfvec
    FROM object;
INSERT INTO representative
  SELECT 1, 1, object_id, 's', content_sha256, pixel_sha256, (object_id - 1) / {turn} + 1
    FROM object WHERE object_id % {group} = 1;
INSERT INTO decision (collection_id, generation, object_id, outcome, reason, pixel_sha256,
                      representative_object_id, distance, valid_from_seq)
  SELECT 1, 1, object_id,
         CASE WHEN object_id % {group} = 1 THEN 'kept' ELSE 'duplicate' END,
         CASE WHEN object_id % {group} = 1 THEN 'new' ELSE 'near' END, pixel_sha256,
         CASE WHEN object_id % {group} = 1 THEN NULL
              ELSE object_id - (object_id - 1) % {group} END,
         CASE WHEN object_id % {group} = 1 THEN NULL ELSE (object_id * 31 % 997) / 1e6 END,
         (object_id - 1) / {turn} + 1
    FROM object;
"""


def fill_million(url: str, images: int = IMAGES) -> None:
    """Fill an empty, migrated ledger."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '256MB'")
        for statement in _FILL.format(n=images, group=PER_GROUP, turn=PER_TURN, name=NAME).split(
            ";\n"
        ):
            if statement.strip():
                connection.execute(statement.encode())
        connection.execute("VACUUM ANALYZE")


def serve_alone(url: str, tell: Connection) -> None:
    """Serve that ledger until this process is killed; tells the address."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
                   "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    with mock_aws(), Database(url, max_connections=8) as database:
        aws()
        parts = parts_over(
            database, needs_identity=False, host_names=frozenset({"127.0.0.1"}),
            is_cookie_secure=False,
        )  # fmt: skip
        with running(parts) as address:
            tell.send(address)
            while True:
                time.sleep(1)
