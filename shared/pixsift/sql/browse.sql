-- For browsing: pages of images as of a point, one image by its id, duplicate groups.

-- name: point
-- Where a page is read: a point given, or now; its generation, and the token of its turn. A turn
-- from before tokens existed has zeros; a seq beyond the collection has no row.
SELECT c.collection_id, coalesce(%(at_seq)s, c.seq) AS seq,
       generation_at(c.collection_id, %(at_seq)s) AS generation,
       coalesce(t.token, '00000000-0000-0000-0000-000000000000') AS token
FROM collection c
LEFT JOIN turn t ON t.collection_id = c.collection_id AND t.seq = coalesce(%(at_seq)s, c.seq)
WHERE c.name = %(name)s AND coalesce(%(at_seq)s, 0) <= c.seq

-- name: page
-- Images as of a point, the newest decision first, after the last one seen. These are the decisions
-- valid at that point, so a page does not change while images arrive.
SELECT d.decision_id, d.valid_from_seq, o.object_id, o.bucket, o.key, o.version_id,
       o.thumbnail_key IS NOT NULL AS has_thumbnail, d.outcome, d.reason, d.distance, d.decided_at,
       d.representative_object_id, r.bucket AS representative_bucket,
       r.key AS representative_key, r.version_id AS representative_version_id,
       coalesce(o.captured_at, o.stored_at) AS captured_at,
       o.captured_at IS NULL AND o.stored_at IS NOT NULL AS is_s3_time,
       coalesce(d.detail -> 'flags', '[]') AS flags,
       (SELECT count(*) FROM decision x
        WHERE d.outcome = 'kept' AND x.representative_object_id = d.object_id
          AND x.collection_id = d.collection_id AND x.generation = d.generation
          AND x.outcome = 'duplicate' AND x.valid_to_seq IS NULL) AS duplicates
FROM decision d
JOIN object o ON o.object_id = d.object_id
LEFT JOIN object r ON r.object_id = d.representative_object_id
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND holds_at(d.valid_from_seq, d.valid_to_seq, %(seq)s)
  AND (%(last_seq)s::bigint IS NULL
       OR (d.valid_from_seq, d.decision_id) < (%(last_seq)s::bigint, %(last_id)s::bigint))
  AND (%(outcome)s::text IS NULL OR d.outcome = %(outcome)s)
  AND (%(reason)s::text IS NULL OR d.reason = %(reason)s)
  AND (%(flag)s::text IS NULL OR d.detail -> 'flags' ? %(flag)s::text)
  AND (%(prefix)s::text IS NULL OR starts_with(o.key, %(prefix)s))
  AND (%(after)s::timestamptz IS NULL OR coalesce(o.captured_at, o.stored_at) >= %(after)s)
  AND (%(before)s::timestamptz IS NULL OR coalesce(o.captured_at, o.stored_at) < %(before)s)
  AND (%(min_distance)s::float8 IS NULL OR d.distance >= %(min_distance)s)
  AND (%(max_distance)s::float8 IS NULL OR d.distance <= %(max_distance)s)
  AND (%(attributes)s::jsonb IS NULL OR NOT EXISTS (
        SELECT FROM jsonb_each(%(attributes)s::jsonb) AS w (name, wanted)
        WHERE NOT coalesce(w.wanted @> (
            SELECT a.attributes -> w.name FROM attribute a
            WHERE a.collection_id = d.collection_id AND a.object_id = d.object_id
              AND holds_at(a.valid_from_seq, a.valid_to_seq, %(seq)s) AND a.attributes ? w.name
            ORDER BY array_position(ARRAY['exif', 'key', 'metadata', 'sidecar'], a.source) DESC
            LIMIT 1), false)))
  AND (%(quality)s::jsonb IS NULL OR NOT EXISTS (
        SELECT FROM jsonb_each(%(quality)s::jsonb) AS q (name, bounds)
        WHERE NOT coalesce((o.quality ->> q.name)::float8
            BETWEEN coalesce((q.bounds ->> 'min')::float8, '-Infinity')
                AND coalesce((q.bounds ->> 'max')::float8, 'Infinity'), false)))
ORDER BY d.valid_from_seq DESC, d.decision_id DESC LIMIT %(limit)s

-- name: version_of
-- The version behind an id.
SELECT bucket, key, version_id, thumbnail_key, erased_at IS NOT NULL AS is_erased,
       image_facts ->> 'format' AS format
FROM object WHERE object_id = %(object_id)s

-- name: groups
-- Representatives with duplicates, those first whose duplicates lie farthest: nearest to the limit.
-- One row per group; the last row seen is passed on as (rank_value, object id).
SELECT g.object_id, g.duplicates, g.farthest, g.newest_seq, g.rank_value, o.bucket, o.key,
       o.version_id, o.thumbnail_key IS NOT NULL AS has_thumbnail
FROM (
    SELECT d.representative_object_id AS object_id, count(*) AS duplicates,
           max(d.distance) AS farthest, max(d.valid_from_seq) AS newest_seq,
           CASE %(order)s::text WHEN 'size' THEN count(*)::float8
                          WHEN 'newest' THEN max(d.valid_from_seq)::float8
                          ELSE coalesce(max(d.distance) FILTER (
                                   WHERE d.reason NOT IN ('content', 'pixels')), -1) END
               AS rank_value
    FROM decision d
    WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
      AND d.outcome = 'duplicate' AND d.valid_to_seq IS NULL
    GROUP BY d.representative_object_id
) g JOIN object o USING (object_id)
WHERE (%(last_value)s::float8 IS NULL
       OR (g.rank_value, -g.object_id) < (%(last_value)s::float8, -(%(last_id)s::bigint)))
  AND (%(prefix)s::text IS NULL OR starts_with(o.key, %(prefix)s))
ORDER BY g.rank_value DESC, g.object_id LIMIT %(limit)s

-- name: members
-- The duplicates of one representative, the most doubtful (farthest) first.
SELECT o.object_id, o.bucket, o.key, o.version_id, o.thumbnail_key IS NOT NULL AS has_thumbnail,
       d.reason, d.distance, d.decided_at, d.valid_from_seq AS seq,
       coalesce(o.captured_at, o.stored_at) AS captured_at
FROM decision d JOIN object o ON o.object_id = d.object_id
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.representative_object_id = %(object_id)s
  AND d.outcome = 'duplicate' AND d.valid_to_seq IS NULL
  AND (%(last_distance)s::float8 IS NULL
       OR (coalesce(d.distance, 0), -o.object_id)
          < (%(last_distance)s::float8, -(%(last_id)s::bigint)))
ORDER BY coalesce(d.distance, 0) DESC, o.object_id LIMIT %(limit)s

-- name: facet_counts
-- Values of one attribute among the images that have one outcome now; the most frequent first. One
-- pass over the attributes, in the order of their index: a look-up for each image takes several
-- times as long.
SELECT v.value, count(*) AS images
FROM (
    SELECT DISTINCT ON (a.object_id) a.object_id, a.attributes ->> %(attribute)s AS value
    FROM attribute a
    WHERE a.collection_id = %(collection_id)s AND a.valid_to_seq IS NULL
      AND a.attributes ? %(attribute)s
    ORDER BY a.object_id,
             array_position(ARRAY['exif', 'key', 'metadata', 'sidecar'], a.source) DESC
) v JOIN decision d ON d.object_id = v.object_id
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.valid_to_seq IS NULL AND (%(outcome)s::text IS NULL OR d.outcome = %(outcome)s)
GROUP BY v.value ORDER BY count(*) DESC, v.value LIMIT %(limit)s
