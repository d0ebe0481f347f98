-- What a search needs from the ledger.

-- name: matching
-- Ids of the images with one of these outcomes now that pass a filter, ascending; as in pool_facts
-- and in `matching` of pixsift.core.choosing.pool. A remembered image (expired) represents, but is
-- gone.
SELECT d.object_id
FROM decision d JOIN object o USING (object_id)
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.valid_to_seq IS NULL AND d.outcome = ANY(%(outcomes)s::text[])
  AND (%(flags)s::text[] IS NULL OR d.detail -> 'flags' ?| %(flags)s::text[])
  AND (%(flagged)s::text = 'include' OR (%(flagged)s::text = 'only') = EXISTS (
        SELECT FROM jsonb_array_elements_text(coalesce(d.detail -> 'flags', '[]')) AS f (flag)
        WHERE f.flag <> ALL (%(file_checks)s::text[])))
  AND (%(prefix)s::text IS NULL OR starts_with(o.key, %(prefix)s))
  AND (%(after)s::timestamptz IS NULL OR coalesce(o.captured_at, o.stored_at) >= %(after)s)
  AND (%(before)s::timestamptz IS NULL OR coalesce(o.captured_at, o.stored_at) < %(before)s)
  AND (%(attributes)s::jsonb IS NULL OR NOT EXISTS (
        SELECT FROM jsonb_each(%(attributes)s::jsonb) AS w (name, wanted)
        WHERE NOT coalesce(w.wanted @> (
            SELECT a.attributes -> w.name FROM attribute a
            WHERE a.collection_id = d.collection_id AND a.object_id = d.object_id
              AND a.valid_to_seq IS NULL AND a.attributes ? w.name
            ORDER BY array_position(ARRAY['exif', 'key', 'metadata', 'sidecar'], a.source) DESC
            LIMIT 1), false)))
  AND (%(quality)s::jsonb IS NULL OR NOT EXISTS (
        SELECT FROM jsonb_each(%(quality)s::jsonb) AS q (name, bounds)
        WHERE NOT coalesce((o.quality ->> q.name)::float4
            BETWEEN coalesce((q.bounds ->> 'min')::float4, '-Infinity')
                AND coalesce((q.bounds ->> 'max')::float4, 'Infinity'), false)))
ORDER BY d.object_id

-- name: remembered
-- Representatives whose image is gone: they filter, but cannot be shown.
SELECT d.object_id FROM decision d
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.outcome = 'gone' AND d.valid_to_seq IS NULL
  AND EXISTS (SELECT FROM representative r
              WHERE r.collection_id = d.collection_id AND r.generation = d.generation
                AND r.object_id = d.object_id AND r.valid_to_seq IS NULL)

-- name: count_kept
-- How many vectors a resident search would hold.
SELECT count(*) FROM representative
WHERE collection_id = %(collection_id)s AND generation = %(generation)s AND valid_to_seq IS NULL

-- name: under_prefix
-- A folder as examples: what is kept below a bucket's prefix, the newest first.
SELECT r.object_id FROM representative r JOIN object o USING (object_id)
WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
  AND r.valid_to_seq IS NULL AND o.bucket = %(bucket)s AND starts_with(o.key, %(prefix)s)
  AND o.erased_at IS NULL
ORDER BY r.valid_from_seq DESC, r.object_id DESC LIMIT %(limit)s

-- name: reference_under_prefix
-- A reference set: objects kept or duplicate in some collection that have a vector in the space,
-- the newest first.
SELECT DISTINCT d.object_id FROM object o
JOIN decision d ON d.object_id = o.object_id AND d.valid_to_seq IS NULL
               AND d.outcome IN ('kept', 'duplicate')
JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = d.pixel_sha256
WHERE o.bucket = %(bucket)s AND starts_with(o.key, %(prefix)s) AND o.erased_at IS NULL
ORDER BY d.object_id DESC LIMIT %(limit)s

-- name: novelty
-- Frames by group: how many, how many of them were kept. `last`: the newest of each group only, by
-- capture; without a time of its own, a frame counts by when S3 stored it.
WITH framed AS (
    SELECT d.outcome, coalesce(o.captured_at, o.stored_at) AS captured_at,
           CASE %(by)s::text
               WHEN 'day' THEN to_char(coalesce(o.captured_at, o.stored_at) AT TIME ZONE 'UTC',
                                       'YYYY-MM-DD')
               WHEN 'hour' THEN to_char(coalesce(o.captured_at, o.stored_at) AT TIME ZONE 'UTC',
                                        'YYYY-MM-DD"T"HH24')
               ELSE a.value END AS grouped
    FROM decision d JOIN object o USING (object_id)
    LEFT JOIN LATERAL (
        SELECT t.attributes ->> %(by)s AS value FROM attribute t
        WHERE t.collection_id = d.collection_id AND t.object_id = d.object_id
          AND t.valid_to_seq IS NULL AND t.attributes ? %(by)s
        ORDER BY array_position(ARRAY['exif', 'key', 'metadata', 'sidecar'], t.source) DESC LIMIT 1
    ) a ON %(by)s::text NOT IN ('day', 'hour')
    WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
      AND d.valid_to_seq IS NULL AND d.outcome IN ('kept', 'duplicate', 'rejected')
      AND o.erased_at IS NULL
      AND (%(after)s::timestamptz IS NULL OR coalesce(o.captured_at, o.stored_at) >= %(after)s)
      AND (%(before)s::timestamptz IS NULL OR coalesce(o.captured_at, o.stored_at) < %(before)s)
      AND (%(attributes)s::jsonb IS NULL OR NOT EXISTS (
            SELECT FROM jsonb_each(%(attributes)s::jsonb) AS w (name, wanted)
            WHERE NOT coalesce(w.wanted @> (
                SELECT t.attributes -> w.name FROM attribute t
                WHERE t.collection_id = d.collection_id AND t.object_id = d.object_id
                  AND t.valid_to_seq IS NULL AND t.attributes ? w.name
                ORDER BY array_position(ARRAY['exif', 'key', 'metadata', 'sidecar'], t.source) DESC
                LIMIT 1), false)))
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY grouped ORDER BY captured_at DESC NULLS LAST) AS place
    FROM framed
)
SELECT grouped, count(*) FILTER (WHERE outcome <> 'rejected') AS frames,
       count(*) FILTER (WHERE outcome = 'kept') AS kept,
       count(*) FILTER (WHERE outcome = 'rejected') AS rejected,
       min(captured_at) AS first_captured, max(captured_at) AS last_captured
FROM ranked WHERE %(last)s::bigint IS NULL OR place <= %(last)s
GROUP BY grouped ORDER BY grouped NULLS LAST

-- name: examples
-- Examples of a query: their vectors, their pixels, and the kept image that shows the very same.
SELECT v.object_id, v.pixel_sha256, e.embedding, r.object_id AS kept_object_id
FROM (SELECT DISTINCT object_id, pixel_sha256 FROM decision
      WHERE object_id = ANY (%(object_ids)s::bigint[])) AS v
JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = v.pixel_sha256
LEFT JOIN representative r ON r.collection_id = %(collection_id)s
                          AND r.generation = %(generation)s AND r.valid_to_seq IS NULL
                          AND r.pixel_sha256 = v.pixel_sha256
ORDER BY v.object_id

-- name: few_vectors
-- As `vectors`, for a few: a prepared statement in a pipeline costs less than a COPY.
SELECT v.object_id, e.embedding
FROM (SELECT DISTINCT object_id, pixel_sha256 FROM decision
      WHERE object_id = ANY (%(object_ids)s::bigint[])) AS v
JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = v.pixel_sha256
ORDER BY v.object_id

-- name: pixels_of
-- The pixels of objects by the recipe of this space; an object may have none.
SELECT DISTINCT d.object_id, d.pixel_sha256 FROM decision d
JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = d.pixel_sha256
WHERE d.object_id = ANY(%(object_ids)s)

-- name: kept_with_pixels
-- The kept images with exactly the same pixels.
SELECT object_id FROM representative
WHERE collection_id = %(collection_id)s AND generation = %(generation)s AND valid_to_seq IS NULL
  AND pixel_sha256 = ANY(%(pixels)s)

-- name: with_pixels
-- Whatever shows the very same pixels, kept or not.
SELECT object_id FROM object WHERE pixel_sha256 = ANY(%(pixels)s)

-- name: shown
-- What a list shows of some images.
SELECT s.outcome, s.representative_object_id, o.object_id, o.bucket, o.key, o.version_id,
       o.thumbnail_key IS NOT NULL AS has_thumbnail,
       coalesce(o.captured_at, o.stored_at) AS captured_at,
       (SELECT count(*) FROM decision x
        WHERE x.representative_object_id = o.object_id AND x.collection_id = %(collection_id)s
          AND x.generation = %(generation)s AND x.outcome = 'duplicate'
          AND x.valid_to_seq IS NULL) AS duplicates,
       (SELECT coalesce(jsonb_object_agg(p.name, p.value), '{}') FROM (
            SELECT DISTINCT ON (e.key) e.key AS name, e.value
            FROM attribute a, jsonb_each(a.attributes) e
            WHERE a.collection_id = %(collection_id)s AND a.object_id = o.object_id
              AND a.valid_to_seq IS NULL
            ORDER BY e.key,
                     array_position(ARRAY['exif', 'key', 'metadata', 'sidecar'], a.source) DESC
        ) p) AS attributes
FROM object o
LEFT JOIN decision s ON s.collection_id = %(collection_id)s AND s.generation = %(generation)s
                    AND s.object_id = o.object_id AND s.valid_to_seq IS NULL
WHERE o.object_id = ANY(%(object_ids)s)

-- name: duplicates_of
-- The duplicates of some kept images, for a search that expands hits.
SELECT object_id, representative_object_id, pixel_sha256 FROM decision
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND outcome = 'duplicate' AND valid_to_seq IS NULL
  AND representative_object_id = ANY(%(object_ids)s)
ORDER BY object_id

-- name: vectors
-- Of some objects, ascending: the stored halves in the one layout that the parser knows.
COPY (
    SELECT v.object_id, e.embedding
    FROM (SELECT DISTINCT object_id, pixel_sha256 FROM decision
          WHERE object_id = ANY (%(object_ids)s::bigint[])) AS v
    JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = v.pixel_sha256
    ORDER BY v.object_id
) TO STDOUT (FORMAT binary)

-- name: every_vector
-- Of everything kept, for a search without memory of its own.
COPY (
    SELECT r.object_id, e.embedding
    FROM representative r JOIN embedding e USING (space_id, pixel_sha256)
    WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
      AND r.valid_to_seq IS NULL
) TO STDOUT (FORMAT binary)

-- name: iterative
-- Only for this transaction: the index goes on beyond ef_search until enough rows are found.
SELECT set_config('hnsw.iterative_scan', 'strict_order', true),
       set_config('hnsw.ef_search', %(ef_search)s, true),
       set_config('hnsw.max_scan_tuples', %(most)s, true)

-- name: body_nearest
-- Through the index of the generation's body: ordered by the raw operator, ascending and alone.
SELECT b.object_id FROM {body} b ORDER BY b.embedding <=> %(query)b LIMIT %(most)s
