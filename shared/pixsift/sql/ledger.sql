-- name: decided
-- Which of these versions need no more work: any outcome but failed is final.
SELECT v.ordinal
FROM unnest(%(buckets)b::text[], %(keys)b::text[], %(version_ids)b::text[])
         WITH ORDINALITY AS v (bucket, key, version_id, ordinal)
JOIN object o ON (o.bucket, o.key, o.version_id) = (v.bucket, v.key, v.version_id)
JOIN collection c ON c.collection_id = %(collection_id)s
JOIN decision d ON d.collection_id = c.collection_id AND d.generation = c.generation
               AND d.object_id = o.object_id AND d.valid_to_seq IS NULL
WHERE d.outcome <> 'failed'
  -- Without versioning the same bytes under the same key are the same version: it may be back.
  AND NOT (d.outcome = 'gone' AND d.reason <> 'erased'
           AND (starts_with(v.version_id, 'etag:') OR starts_with(v.version_id, 'file:')))

-- name: known_images
-- Bytes that were decoded and embedded before, in this space: no decoder, no model needed.
SELECT DISTINCT ON (o.content_sha256)
       o.content_sha256, d.pixel_sha256, o.image_facts, o.quality, o.captured_at, o.thumbnail_key
FROM object o
JOIN decision d ON d.object_id = o.object_id
JOIN collection c USING (collection_id)
JOIN generation g ON (g.collection_id, g.generation) = (d.collection_id, d.generation)
JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = d.pixel_sha256
WHERE coalesce(g.space_id, c.space_id) = %(space_id)s
  AND o.content_sha256 = ANY (%(content_sha256s)b::bytea[]) AND o.erased_at IS NULL
ORDER BY o.content_sha256, o.object_id

-- name: embeddings
-- Vectors that exist, with their second-look signals.
SELECT pixel_sha256, embedding, look || change AS look
FROM embedding
WHERE space_id = %(space_id)s AND pixel_sha256 = ANY (%(pixel_sha256s)b::bytea[])

-- name: pixels_in_use
-- An erasure blanks its objects last; until then their outcome says it.
SELECT DISTINCT o.pixel_sha256
FROM object o JOIN decision d USING (object_id)
WHERE o.pixel_sha256 = ANY (%(pixel_sha256s)b::bytea[]) AND d.valid_to_seq IS NULL
  AND NOT (d.outcome = 'gone' AND d.reason = 'erased')

-- name: salt
-- Never changes; see core/tombstone.py.
SELECT salt FROM tombstone_salt

-- name: tombstones
-- Marks of erased versions and of erased bytes, whichever hit.
SELECT key_hash, content_hash FROM tombstone
WHERE key_hash = ANY (%(version_marks)b::bytea[])
   OR content_hash = ANY (%(content_marks)b::bytea[])

-- name: read_watermark
-- Phase 1, first statement: everything up to this seq is committed and visible to later reads. Read
-- after the search, it would hide what was committed in between.
SELECT c.seq,
       coalesce(t.token, '00000000-0000-0000-0000-000000000000') AS token,
       c.generation, g.epsilon, g.second_look, g.keep_best, c.space_id,
       ARRAY(SELECT p.protected_id FROM protected_set p
             WHERE p.collection_id = c.collection_id AND p.withdrawn_at IS NULL
             ORDER BY p.declared_at, p.protected_id) AS protected
FROM collection c JOIN generation g USING (collection_id, generation)
LEFT JOIN turn t USING (collection_id, seq)
WHERE c.collection_id = %(collection_id)s

-- name: candidates
-- Phase 1: what the search proposed, from the ledger itself, where it is still alive.
SELECT r.object_id, r.content_sha256, r.pixel_sha256, e.embedding, e.look || e.change AS look
FROM representative r JOIN embedding e USING (space_id, pixel_sha256)
WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
  AND r.object_id = ANY (%(object_ids)b::bigint[]) AND r.valid_to_seq IS NULL

-- name: removable
-- Phase 1: representatives among the versions that are gone. One that is gone already and is
-- remembered stays, unless it is erased.
SELECT r.object_id
FROM unnest(%(buckets)b::text[], %(keys)b::text[], %(version_ids)b::text[], %(reasons)b::text[])
         AS v (bucket, key, version_id, reason)
JOIN object o ON (o.bucket, o.key, o.version_id) = (v.bucket, v.key, v.version_id)
JOIN representative r ON r.object_id = o.object_id AND r.valid_to_seq IS NULL
JOIN decision d ON d.collection_id = r.collection_id AND d.generation = r.generation
               AND d.object_id = r.object_id AND d.valid_to_seq IS NULL
WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
  AND (d.outcome <> 'gone' OR (v.reason = 'erased' AND d.reason <> 'erased'))

-- name: children
-- Duplicates of removed representatives, in the order they are decided again. The order is
-- guaranteed: a re-decision is reproducible. One without a vector is included: left out, it would
-- block the removal of its representative forever.
SELECT d.object_id, o.content_sha256, d.pixel_sha256, e.embedding, e.look || e.change AS look,
       d.detail, d.representative_object_id
FROM decision d
JOIN object o USING (object_id)
LEFT JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = d.pixel_sha256
WHERE d.representative_object_id = ANY (%(representatives)b::bigint[])
  AND d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.outcome = 'duplicate' AND d.valid_to_seq IS NULL
ORDER BY redecide_order(o.quality, d.valid_from_seq, d.object_id)

-- name: child_ids
-- Under the lock: whether the plan knows every child.
SELECT object_id, representative_object_id FROM decision
WHERE representative_object_id = ANY (%(representatives)b::bigint[])
  AND collection_id = %(collection_id)s AND generation = %(generation)s
  AND outcome = 'duplicate' AND valid_to_seq IS NULL

-- name: upsert_objects
-- Before the lock, in key order so that two consumers cannot deadlock. Facts are filled in once:
-- an event that overtook its object's creation leaves them empty. Erased rows stay empty.
INSERT INTO object (bucket, key, version_id, etag, size_bytes, sequencer, content_sha256,
                    pixel_sha256, image_facts, quality, captured_at, thumbnail_key,
                    stored_at)
SELECT *
FROM unnest(%(buckets)b::text[], %(keys)b::text[], %(version_ids)b::text[], %(etags)b::text[],
            %(sizes)b::bigint[], %(sequencers)b::text[], %(contents)b::bytea[],
            %(pixels)b::bytea[], %(facts)b::jsonb[], %(qualities)b::jsonb[],
            %(captured_ats)b::timestamptz[], %(thumbnails)b::text[],
            %(stored_ats)b::timestamptz[]) AS v (bucket, key, version_id)
ORDER BY v.bucket COLLATE "C", v.key COLLATE "C", v.version_id COLLATE "C"
ON CONFLICT (bucket, key, version_id) DO UPDATE
SET etag = coalesce(object.etag, excluded.etag),
    size_bytes = coalesce(object.size_bytes, excluded.size_bytes),
    sequencer = coalesce(object.sequencer, excluded.sequencer),
    content_sha256 = coalesce(object.content_sha256, excluded.content_sha256),
    pixel_sha256 = coalesce(object.pixel_sha256, excluded.pixel_sha256),
    image_facts = coalesce(object.image_facts, excluded.image_facts),
    quality = coalesce(object.quality, excluded.quality),
    captured_at = coalesce(object.captured_at, excluded.captured_at),
    thumbnail_key = coalesce(object.thumbnail_key, excluded.thumbnail_key),
    stored_at = coalesce(object.stored_at, excluded.stored_at)
WHERE object.erased_at IS NULL
  AND (object.content_sha256 IS NULL AND excluded.content_sha256 IS NOT NULL
       OR object.pixel_sha256 IS NULL AND excluded.pixel_sha256 IS NOT NULL)

-- name: object_ids
-- The upsert returns only rows it wrote.
SELECT o.object_id
FROM unnest(%(buckets)b::text[], %(keys)b::text[], %(version_ids)b::text[])
         WITH ORDINALITY AS v (bucket, key, version_id, ordinal)
JOIN object o ON (o.bucket, o.key, o.version_id) = (v.bucket, v.key, v.version_id)
ORDER BY v.ordinal

-- name: insert_embeddings
-- Before the lock, in hash order. What is stored first stays: a vector is never replaced, since
-- decisions were measured on it.
INSERT INTO embedding (space_id, pixel_sha256, embedding, look, change)
SELECT %(space_id)s, v.pixel_sha256, v.embedding, v.look, v.change
FROM unnest(%(pixels)b::bytea[], %(embeddings)b::halfvec[], %(looks)b::bytea[],
            %(changes)b::bytea[]) AS v (pixel_sha256, embedding, look, change)
ORDER BY v.pixel_sha256
ON CONFLICT (space_id, pixel_sha256) DO NOTHING

-- name: open_decisions
-- Under the lock: what these objects' outcomes are now.
SELECT d.object_id, d.outcome, d.reason, d.representative_object_id, d.distance, d.valid_from_seq,
       d.detail ->> 'sequencer' AS ended_by,
       CASE WHEN d.outcome = 'gone' THEN
            (SELECT o.stored_at FROM object o WHERE o.object_id = d.object_id) END AS stored_at
FROM decision d
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND object_id = ANY (%(object_ids)b::bigint[]) AND valid_to_seq IS NULL

-- name: tail
-- Under the lock: representatives newer than the watermark, which the search cannot have seen.
-- LIMIT 1 does not limit anything; it forces the planner to one look-up per row. Where the planner
-- overestimates the tail (a small collection next to a large one), a plain join would read every
-- vector of the ledger.
SELECT r.object_id, r.content_sha256, r.pixel_sha256, e.embedding, e.look || e.change AS look
FROM representative r
CROSS JOIN LATERAL (
    SELECT v.embedding, v.look, v.change FROM embedding v
    WHERE v.space_id = r.space_id AND v.pixel_sha256 = r.pixel_sha256 LIMIT 1
) e
WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
  AND r.valid_from_seq > %(watermark)s AND r.valid_to_seq IS NULL

-- name: count_vectors
-- Under the lock, which an erasure takes before it drops vectors.
SELECT count(*) FROM embedding
WHERE space_id = %(space_id)s AND pixel_sha256 = ANY (%(pixel_sha256s)b::bytea[])

-- name: alive
-- Read without the lock, and again under it: which candidates still represent, and which
-- representatives have the same bytes or pixels.
SELECT object_id, content_sha256, pixel_sha256 FROM representative
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND object_id = ANY (%(object_ids)b::bigint[]) AND valid_to_seq IS NULL
UNION
SELECT object_id, content_sha256, pixel_sha256 FROM representative
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND content_sha256 = ANY (%(contents)b::bytea[]) AND valid_to_seq IS NULL
UNION
SELECT object_id, content_sha256, pixel_sha256 FROM representative
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND pixel_sha256 = ANY (%(pixels)b::bytea[]) AND valid_to_seq IS NULL

-- name: record_anomaly
-- The same message received again is the same anomaly.
INSERT INTO anomaly (queue, message_id, body, reason)
VALUES (%(queue)s, %(message_id)s, %(body)s, %(reason)s)
ON CONFLICT (queue, message_id, reason) DO NOTHING

-- name: ping
-- A standby answers as well, but would refuse every decision.
SELECT pg_is_in_recovery()

-- name: try_locks
-- The locks of a decision on these tables; a long DDL on one of them blocks them.
LOCK TABLE collection, object, decision, representative, embedding IN ROW EXCLUSIVE MODE

-- name: try_write
-- Rolled back. Large enough to need new pages, which a full disk does not give.
INSERT INTO anomaly (queue, message_id, body, reason)
VALUES ('', %(probe_id)s, %(body)s, 'probe')

-- name: versions_of
-- In a bucket without versioning a write or a removal ends the versions before it.
SELECT version_id FROM object WHERE bucket = %(bucket)s AND key = %(key)s
