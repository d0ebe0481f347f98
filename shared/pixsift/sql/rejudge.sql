-- Deciding single objects again, or taking their decision back, in the generation in use.

-- name: lock_for_rejudging
-- The lock of every decision; alone in its statement, so that the next one sees all earlier holders.
SELECT seq, generation FROM collection WHERE collection_id = %(collection_id)s FOR NO KEY UPDATE

-- name: rule_in_use
-- The rule of the generation in use.
SELECT g.generation, g.epsilon, g.second_look
FROM collection c JOIN generation g USING (collection_id, generation)
WHERE c.collection_id = %(collection_id)s

-- name: subjects
-- The kept and duplicate ones among the objects, and the duplicates of the kept ones: whoever must
-- be decided again together. Kept ones first, oldest first, so that what is right stays; then
-- sharper first and older, as when a representative is removed.
SELECT o.object_id, o.content_sha256, d.pixel_sha256, e.embedding, e.look
FROM decision d JOIN object o USING (object_id)
JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = d.pixel_sha256
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.valid_to_seq IS NULL AND o.content_sha256 IS NOT NULL
  AND (d.object_id = ANY (%(object_ids)s) AND d.outcome IN ('kept', 'duplicate')
       OR d.representative_object_id = ANY (%(object_ids)s) AND d.outcome = 'duplicate')
ORDER BY d.outcome = 'kept' DESC, CASE WHEN d.outcome = 'kept' THEN d.valid_from_seq END,
         (o.quality ->> 'sharpness')::float8 DESC NULLS LAST, d.valid_from_seq, o.object_id

-- name: living
-- Representatives among these objects, or with one of these bytes or pixels.
SELECT r.object_id, r.content_sha256, r.pixel_sha256, e.embedding, e.look
FROM representative r JOIN embedding e USING (space_id, pixel_sha256)
WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
  AND r.valid_to_seq IS NULL
  AND (r.object_id = ANY (%(object_ids)s) OR r.content_sha256 = ANY (%(contents)s)
       OR r.pixel_sha256 = ANY (%(pixels)s) OR r.valid_from_seq > %(watermark)s)

-- name: standing
-- Under the lock: the outcomes that hold now.
SELECT object_id, outcome, reason, representative_object_id, distance
FROM decision
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND object_id = ANY (%(object_ids)s) AND valid_to_seq IS NULL

-- name: end_standing
-- Rows are only ever added and closed.
UPDATE decision SET valid_to_seq = %(seq)s
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND object_id = ANY (%(object_ids)s) AND valid_to_seq IS NULL

-- name: end_representing
-- One that represents again later gets a new row, so that older watermarks cannot hide it.
UPDATE representative SET valid_to_seq = %(seq)s
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND object_id = ANY (%(object_ids)s) AND valid_to_seq IS NULL

-- name: add_decisions
-- What is decided now.
INSERT INTO decision (collection_id, generation, object_id, outcome, reason, detail,
                      representative_object_id, distance, pixel_sha256, valid_from_seq)
SELECT %(collection_id)s, %(generation)s, v.object_id, v.outcome, v.reason, %(detail)s,
       v.representative, v.distance, v.pixel_sha256, %(seq)s
FROM unnest(%(object_ids)s::bigint[], %(outcomes)s::text[], %(reasons)s::text[],
            %(representatives)s::bigint[], %(distances)s::float8[], %(pixels)s::bytea[])
         AS v (object_id, outcome, reason, representative, distance, pixel_sha256)

-- name: add_representatives
-- Those that are kept now and were not.
INSERT INTO representative (collection_id, generation, space_id, object_id, content_sha256,
                            pixel_sha256, valid_from_seq)
SELECT %(collection_id)s, %(generation)s, %(space_id)s, v.object_id, v.content_sha256,
       v.pixel_sha256, %(seq)s
FROM unnest(%(object_ids)s::bigint[], %(contents)s::bytea[], %(pixels)s::bytea[])
         AS v (object_id, content_sha256, pixel_sha256)

-- name: advance_seq
-- Under the lock.
UPDATE collection SET seq = %(seq)s WHERE collection_id = %(collection_id)s

-- name: versions_under_key
-- The objects of a key, or of one version of it, that the ledger knows.
SELECT object_id, bucket, key, version_id, etag, size_bytes FROM object
WHERE bucket = %(bucket)s AND key = %(key)s AND erased_at IS NULL
  AND (%(version_id)s::text IS NULL OR version_id = %(version_id)s)
ORDER BY object_id
