-- Standing queries and what they matched.

-- name: watch_token
-- Another one after every change of a collection's watches; no row: it never had one.
SELECT token FROM watch_state WHERE collection_id = %(collection_id)s

-- name: matched_by
-- Everything that arrivals of a collection are compared with.
SELECT w.watch_id, v.mode, v.is_against, w.max_distance, w.duplicates, v.embedding
FROM watch w JOIN watch_vector v USING (watch_id)
WHERE w.collection_id = %(collection_id)s AND w.space_id = %(space_id)s AND w.ended_at IS NULL
  AND (%(watch_id)s::bigint IS NULL OR w.watch_id = %(watch_id)s)
ORDER BY w.watch_id, v.is_against, v.mode

-- name: insert_hits
-- Of the pairs that are near enough, those that the watch's filter lets through, each once. The
-- filter is that of `matching` in find.sql; a test compares the two.
INSERT INTO watch_hit (watch_id, object_id, collection_id, seq, outcome, distance, mode, is_due)
SELECT w.watch_id, o.object_id, w.collection_id, %(seq)s::bigint, d.outcome, v.distance, v.mode,
       %(seq)s::bigint IS NOT NULL AND w.destination = 'events'
FROM unnest(%(watch_ids)b::bigint[], %(object_ids)b::bigint[], %(distances)b::float8[],
            %(modes)b::int4[]) AS v (watch_id, object_id, distance, mode)
JOIN watch w ON w.watch_id = v.watch_id AND w.ended_at IS NULL
JOIN collection c ON c.collection_id = w.collection_id
JOIN object o ON o.object_id = v.object_id AND o.erased_at IS NULL
JOIN decision d ON d.collection_id = c.collection_id AND d.generation = c.generation
               AND d.object_id = o.object_id AND d.valid_to_seq IS NULL
WHERE (d.outcome = 'kept' OR w.duplicates AND d.outcome = 'duplicate')
  AND (w.condition -> 'flags' IS NULL OR d.detail -> 'flags' ?|
        ARRAY(SELECT jsonb_array_elements_text(w.condition -> 'flags')))
  AND (w.condition ->> 'flagged' = 'include' OR (w.condition ->> 'flagged' = 'only') = EXISTS (
        SELECT FROM jsonb_array_elements_text(coalesce(d.detail -> 'flags', '[]')) AS f (flag)
        WHERE f.flag <> ALL (%(file_checks)s::text[])))
  AND (w.condition ->> 'prefix' IS NULL OR starts_with(o.key, w.condition ->> 'prefix'))
  AND (w.condition ->> 'after' IS NULL
       OR coalesce(o.captured_at, o.stored_at) >= (w.condition ->> 'after')::timestamptz)
  AND (w.condition ->> 'before' IS NULL
       OR coalesce(o.captured_at, o.stored_at) < (w.condition ->> 'before')::timestamptz)
  AND NOT EXISTS (
        SELECT FROM jsonb_each(coalesce(w.condition -> 'attributes', '{}')) AS a (name, wanted)
        WHERE NOT coalesce(a.wanted @> (
            SELECT t.attributes -> a.name FROM attribute t
            WHERE t.collection_id = c.collection_id AND t.object_id = o.object_id
              AND t.valid_to_seq IS NULL AND t.attributes ? a.name
            ORDER BY array_position(ARRAY['exif', 'key', 'metadata', 'sidecar'], t.source) DESC
            LIMIT 1), false))
  AND NOT EXISTS (
        SELECT FROM jsonb_each(coalesce(w.condition -> 'quality', '{}')) AS q (name, bounds)
        WHERE NOT coalesce((o.quality ->> q.name)::float4
            BETWEEN coalesce((q.bounds ->> 'min')::float4, '-Infinity')
                AND coalesce((q.bounds ->> 'max')::float4, 'Infinity'), false))
ON CONFLICT (watch_id, object_id) DO NOTHING

-- name: insert_watch
-- While the collection is shared: turns up to this seq do not know the watch, all later ones do.
INSERT INTO watch (collection_id, name, space_id, max_distance, condition, duplicates, destination,
                   examples, example_pixels, created_by, from_seq)
SELECT collection_id, %(name)s, %(space_id)s, %(max_distance)s, %(condition)s, %(duplicates)s,
       %(destination)s, %(examples)s, %(example_pixels)s::bytea[], %(created_by)s, seq
FROM collection WHERE collection_id = %(collection_id)s
ON CONFLICT (collection_id, name) WHERE ended_at IS NULL DO NOTHING
RETURNING watch_id

-- name: insert_watch_vectors
-- Modes, then counterexamples, each counted from 0.
INSERT INTO watch_vector (watch_id, is_against, mode, embedding)
SELECT %(watch_id)s, v.is_against, v.mode, v.embedding
FROM unnest(%(is_against)b::bool[], %(modes)b::int4[], %(embeddings)b::halfvec[])
         AS v (is_against, mode, embedding)

-- name: change_watches
-- In the transaction of every change: consumers read the watches again. The row's lock puts changes
-- in an order.
INSERT INTO watch_state (collection_id, token) VALUES (%(collection_id)s, gen_random_uuid())
ON CONFLICT (collection_id) DO UPDATE SET token = excluded.token

-- name: count_open
-- How many watches arrivals of a collection are compared with.
SELECT count(*) FROM watch WHERE collection_id = %(collection_id)s AND ended_at IS NULL

-- name: watches
-- With what a list shows of each; all of a ledger, of one collection, or one.
SELECT w.watch_id, w.name, c.name AS collection, w.max_distance, w.condition, w.duplicates,
       w.destination, w.examples, w.created_by, w.created_at, w.from_seq, w.ended_at, w.ended_why,
       w.collection_id, w.space_id, w.space_id = c.space_id AS is_comparable, h.hits, h.last_hit_at
FROM watch w JOIN collection c USING (collection_id)
CROSS JOIN LATERAL (
    SELECT count(*) AS hits, max(at) AS last_hit_at FROM watch_hit x WHERE x.watch_id = w.watch_id
) h
WHERE (%(collection)s::text IS NULL OR c.name = %(collection)s)
  AND (%(watch_id)s::bigint IS NULL OR w.watch_id = %(watch_id)s)
  AND (%(watch_id)s::bigint IS NOT NULL OR %(ended)s OR w.ended_at IS NULL)
ORDER BY w.watch_id DESC LIMIT %(limit)s

-- name: end_watch
-- Its hits stay; what it was compared with goes.
WITH ended AS (
    UPDATE watch SET ended_at = now(), ended_why = %(why)s
    WHERE watch_id = %(watch_id)s AND ended_at IS NULL RETURNING watch_id, collection_id
), dropped AS (
    DELETE FROM watch_vector v USING ended e WHERE v.watch_id = e.watch_id
)
SELECT collection_id FROM ended

-- name: hits
-- The newest first, from below the last one seen.
SELECT h.hit_id, h.watch_id, w.name AS watch, h.object_id, o.bucket, o.key, o.version_id,
       o.thumbnail_key IS NOT NULL AS has_thumbnail, h.outcome, h.distance, h.mode, h.seq, h.at,
       coalesce(o.captured_at, o.stored_at) AS captured_at, h.announced_at, h.is_due
FROM watch_hit h JOIN watch w USING (watch_id) JOIN object o USING (object_id)
WHERE h.watch_id = %(watch_id)s AND (%(before)s::bigint IS NULL OR h.hit_id < %(before)s)
ORDER BY h.hit_id DESC LIMIT %(limit)s

-- name: hits_between
-- What a span of turns matched, for readers that follow a collection.
SELECT h.hit_id, h.watch_id, w.name AS watch, h.object_id, o.bucket, o.key, o.version_id,
       o.thumbnail_key IS NOT NULL AS has_thumbnail, h.outcome, h.distance, h.mode, h.seq, h.at,
       coalesce(o.captured_at, o.stored_at) AS captured_at, h.announced_at, h.is_due
FROM watch_hit h JOIN watch w USING (watch_id) JOIN object o USING (object_id)
JOIN collection c ON c.collection_id = h.collection_id
WHERE c.name = %(name)s AND h.seq > %(from_seq)s AND h.seq <= %(to_seq)s
ORDER BY h.seq DESC, h.hit_id DESC LIMIT %(limit)s

-- name: count_hits_between
-- The same, counted by watch.
SELECT w.watch_id, w.name AS watch, count(*) AS hits
FROM watch_hit h JOIN watch w USING (watch_id)
JOIN collection c ON c.collection_id = h.collection_id
WHERE c.name = %(name)s AND h.seq > %(from_seq)s AND h.seq <= %(to_seq)s
GROUP BY w.watch_id, w.name ORDER BY w.watch_id

-- name: past_vectors
-- What a watch may be run over: images that hold one of these outcomes now.
COPY (
    SELECT d.object_id, e.embedding
    FROM decision d
    JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = d.pixel_sha256
    JOIN collection c ON c.collection_id = d.collection_id AND c.generation = d.generation
    WHERE d.collection_id = %(collection_id)s AND d.valid_to_seq IS NULL
      AND d.outcome = ANY (%(outcomes)s::text[])
) TO STDOUT (FORMAT binary)

-- name: claim_hits
-- The oldest that are due and that no process is at. A claim ends by itself: what a killed process
-- had claimed is announced by another one, perhaps a second time.
WITH claimed AS (
    SELECT hit_id FROM watch_hit
    WHERE is_due AND (claimed_until IS NULL OR claimed_until < clock_timestamp())
    ORDER BY hit_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE watch_hit h SET claimed_until = clock_timestamp() + make_interval(secs => %(seconds)s)
FROM claimed, watch w, collection c, object o
WHERE h.hit_id = claimed.hit_id AND w.watch_id = h.watch_id
  AND c.collection_id = h.collection_id AND o.object_id = h.object_id
RETURNING h.hit_id, h.watch_id, w.name AS watch, c.name AS collection, h.object_id, o.bucket, o.key,
          o.version_id, h.outcome, h.distance, h.mode, h.seq, h.at

-- name: mark_hits_announced
-- After the bus has taken them.
UPDATE watch_hit SET is_due = false, announced_at = clock_timestamp(), claimed_until = NULL
WHERE hit_id = ANY (%(hit_ids)s::bigint[])
