-- name: library_version
-- The version of the server's library, which has the fix, independent of the installed SQL version.
SELECT default_version FROM pg_available_extensions WHERE name = 'vector'

-- name: body
-- The index of one generation, if there is one. Its rows are complete up to built_to_seq.
SELECT body_table, built_to_seq FROM neighbor_index
WHERE collection_id = %(collection_id)s AND generation = %(generation)s

-- name: search_width
-- Only for this transaction: a plain SET would leak into whatever runs next on the connection.
SELECT set_config('hnsw.ef_search', %(ef_search)s, true)

-- name: nearest
-- All queries in one statement. The index is used because the column is ordered by the raw
-- operator of its operator class, ascending and alone. Rows removed since are recognized later.
SELECT q.ordinal, near.object_id, near.distance
FROM unnest(%(queries)b::halfvec[]) WITH ORDINALITY AS q (query, ordinal)
CROSS JOIN LATERAL (
    SELECT b.object_id, b.embedding <=> q.query AS distance
    FROM {body} b
    ORDER BY b.embedding <=> q.query
    LIMIT %(most)s
) near
WHERE near.distance <= %(max_distance)s

-- name: scan_body
-- For a query with more neighbors than the index was asked for: all of them, without the index.
SELECT b.object_id FROM {body} b WHERE (b.embedding <=> %(query)b) + 0 <= %(max_distance)s

-- name: create_body
-- One narrow table per generation, so that no partial predicate is needed. Above about 1,000
-- dimensions a halfvec would be stored in TOAST, so the storage is PLAIN.
CREATE TABLE {body} (
    object_id bigint PRIMARY KEY,
    embedding halfvec({dimension}) STORAGE PLAIN NOT NULL
)

-- name: fill_body
-- Rows that are valid and newer than the body, in the order of arrival: the published recall was
-- measured in that order.
INSERT INTO {body} (object_id, embedding)
SELECT r.object_id, e.embedding
FROM representative r JOIN embedding e USING (space_id, pixel_sha256)
WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
  AND r.valid_from_seq > %(after)s AND r.valid_from_seq <= %(up_to)s AND r.valid_to_seq IS NULL
ORDER BY r.valid_from_seq, r.object_id
ON CONFLICT (object_id) DO NOTHING

-- name: clean_body
-- Rows that are no longer representatives would use up the width of a search.
DELETE FROM {body} b
WHERE b.object_id IN (
    SELECT object_id FROM representative
    WHERE collection_id = %(collection_id)s AND generation = %(generation)s
      AND valid_to_seq > %(after)s AND valid_to_seq <= %(up_to)s
) AND NOT EXISTS (
    SELECT FROM representative r
    WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
      AND r.object_id = b.object_id AND r.valid_to_seq IS NULL
)

-- name: drop_erased
-- An erased image's row in object stays, without its facts.
DELETE FROM {body} b USING object o
WHERE o.object_id = b.object_id AND o.erased_at IS NOT NULL

-- name: index_body
-- ef_construction far above the default: robots upload in bursts, and in that order a graph built
-- with 128 finds 95 % of the neighbors, with 400 99.5 % (docs/search.md).
CREATE INDEX ON {body} USING hnsw (embedding halfvec_cosine_ops)
WITH (m = {m}, ef_construction = {ef_construction})

-- name: record_body
-- From now on the body is used.
INSERT INTO neighbor_index (collection_id, generation, body_table, built_to_seq)
VALUES (%(collection_id)s, %(generation)s, %(body_table)s, %(up_to)s)
ON CONFLICT (collection_id, generation)
DO UPDATE SET built_to_seq = excluded.built_to_seq, updated_at = now()

-- name: try_alone
-- One process at a time works on the bodies of a collection; held by the transaction.
SELECT pg_try_advisory_xact_lock(1886943086, %(collection_id)s)

-- name: retired_bodies
-- Bodies of generations that are no longer current.
SELECT n.body_table, n.generation
FROM neighbor_index n JOIN collection c USING (collection_id)
WHERE n.collection_id = %(collection_id)s AND n.generation < c.generation

-- name: forget_body
-- With its table, in one transaction.
DELETE FROM neighbor_index
WHERE collection_id = %(collection_id)s AND generation = %(generation)s

-- name: drop_body
-- A search in flight finishes first; a later one sees the new generation.
DROP TABLE IF EXISTS {body}

-- name: count_representatives
-- How large the mirror of a collection would be.
SELECT count(*) FROM representative r JOIN collection c USING (collection_id, generation)
WHERE r.collection_id = %(collection_id)s AND r.valid_to_seq IS NULL
