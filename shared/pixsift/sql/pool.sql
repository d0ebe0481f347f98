-- name: pool_collection
-- The space and generation of a pool of this collection; seq is the highest point that may be asked
-- for.
SELECT c.name, c.seq, m.space_id, m.dimension, g.generation IS NOT NULL
FROM collection c
LEFT JOIN generation g
  ON g.collection_id = c.collection_id AND g.generation = %(generation)s
JOIN model m ON m.space_id = coalesce(g.space_id, c.space_id)
WHERE c.collection_id = %(collection_id)s

-- name: pool_point
-- The generation that was current at that point, or now.
SELECT c.collection_id, coalesce(%(at_seq)s, c.seq), generation_at(c.collection_id, %(at_seq)s)
FROM collection c
WHERE c.name = %(name)s

-- name: pool_uris
-- The parts of an object's URI.
SELECT object_id, bucket, key, version_id
FROM object
WHERE object_id = ANY (%(object_ids)s)

-- name: pool_bytes
-- What copies of them would hold.
SELECT coalesce(sum(size_bytes), 0)::bigint
FROM object
WHERE object_id = ANY (%(object_ids)s)

-- name: pool_spaces
-- Vectors of different spaces are never compared: more than one row here is refused.
SELECT DISTINCT space_id
FROM representative
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND holds_at(valid_from_seq, valid_to_seq, %(at_seq)s)

-- name: pool_facts
-- One row per image kept at that point. A row is valid at S from valid_from_seq (included) to
-- valid_to_seq (excluded). erased says whether its vector may be missing. A remembered
-- image (expired, its memory keeps filtering) represents, but cannot be chosen. Where no capture
-- time is known, S3's time of the write is used, and the row says so. Flags are those of the
-- decision that held at that point.
SELECT r.object_id, o.quality, extract(epoch FROM coalesce(o.captured_at, o.stored_at))::float8,
       o.captured_at IS NULL AND o.stored_at IS NOT NULL,
       o.erased_at IS NOT NULL,
       EXISTS (SELECT FROM embedding e
               WHERE e.space_id = r.space_id AND e.pixel_sha256 = r.pixel_sha256),
       d.detail -> 'flags', %(prefix)s::text IS NULL OR starts_with(o.key, %(prefix)s)
FROM representative r JOIN object o USING (object_id)
JOIN decision d ON d.collection_id = r.collection_id AND d.generation = r.generation
               AND d.object_id = r.object_id AND d.outcome <> 'gone'
               AND holds_at(d.valid_from_seq, d.valid_to_seq, %(at_seq)s)
WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
  AND holds_at(r.valid_from_seq, r.valid_to_seq, %(at_seq)s)
  AND (%(prefix)s::text IS NULL OR starts_with(o.key, %(prefix)s)
       OR r.object_id = ANY (%(through)s::bigint[]))
ORDER BY r.object_id

-- name: pool_through_duplicates
-- Kept images that stand for a duplicate which has all of these attributes and the prefix itself.
-- Of several sources of an attribute the one with the highest precedence counts, as in
-- pool_attributes; one scan of the attributes, however many duplicates there are.
WITH told AS (
    SELECT a.object_id, n.name,
           (array_agg(a.attributes ->> n.name ORDER BY array_position(
                ARRAY['exif', 'key', 'metadata', 'sidecar'], a.source) DESC))[1] AS value
    FROM attribute a CROSS JOIN jsonb_object_keys(%(wanted)s::jsonb) AS n (name)
    WHERE a.collection_id = %(collection_id)s AND a.attributes ? n.name
      AND holds_at(a.valid_from_seq, a.valid_to_seq, %(at_seq)s)
    GROUP BY a.object_id, n.name
), passing AS (
    SELECT object_id FROM told
    WHERE (%(wanted)s::jsonb -> name) ? value
    GROUP BY object_id HAVING count(*) = %(names)s
)
SELECT DISTINCT d.representative_object_id
FROM decision d JOIN object o USING (object_id)
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.outcome = 'duplicate' AND holds_at(d.valid_from_seq, d.valid_to_seq, %(at_seq)s)
  AND (%(prefix)s::text IS NULL OR starts_with(o.key, %(prefix)s))
  AND (%(names)s = 0 OR d.object_id IN (SELECT object_id FROM passing))
ORDER BY d.representative_object_id

-- name: pool_conflicts
-- Groups of a kept image and its duplicates that have several values of one of these attributes.
WITH told AS (
    SELECT coalesce(d.representative_object_id, d.object_id) AS of, n.name,
           (array_agg(a.attributes ->> n.name ORDER BY array_position(
                ARRAY['exif', 'key', 'metadata', 'sidecar'], a.source) DESC))[1] AS value
    FROM decision d
    JOIN attribute a ON a.collection_id = d.collection_id AND a.object_id = d.object_id
                    AND holds_at(a.valid_from_seq, a.valid_to_seq, %(at_seq)s)
    CROSS JOIN unnest(%(names)s::text[]) AS n (name)
    WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
      AND d.outcome IN ('kept', 'duplicate')
      AND holds_at(d.valid_from_seq, d.valid_to_seq, %(at_seq)s)
      AND a.attributes ? n.name
    GROUP BY of, d.object_id, n.name
)
SELECT t.of, t.name, array_agg(DISTINCT t.value ORDER BY t.value) AS values
FROM told t WHERE t.value IS NOT NULL
GROUP BY t.of, t.name HAVING count(DISTINCT t.value) > 1
ORDER BY t.name, t.of

-- name: pool_attributes
-- Rows of one object come in rising precedence: a later row overrides an earlier one.
SELECT a.object_id, a.attributes
FROM attribute a
WHERE a.collection_id = %(collection_id)s
  AND holds_at(a.valid_from_seq, a.valid_to_seq, %(at_seq)s)
  AND EXISTS (SELECT FROM representative r
              WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
                AND r.object_id = a.object_id
                AND holds_at(r.valid_from_seq, r.valid_to_seq, %(at_seq)s))
ORDER BY a.object_id, array_position(ARRAY['exif', 'key', 'metadata', 'sidecar'], a.source)

-- name: pool_attributes_of
-- Of objects chosen earlier, kept still or not, at that point; precedence as in pool_attributes.
SELECT a.object_id, a.attributes
FROM attribute a
WHERE a.collection_id = %(collection_id)s AND a.object_id = ANY (%(object_ids)s)
  AND a.valid_from_seq <= %(at_seq)s AND (a.valid_to_seq IS NULL OR a.valid_to_seq > %(at_seq)s)
ORDER BY a.object_id, array_position(ARRAY['exif', 'key', 'metadata', 'sidecar'], a.source)

-- name: pool_anchors
-- Objects chosen earlier need not be kept any more; only those whose vector still exists count.
-- An object has one pixel hash per recipe and its row only the first: decisions know them all.
SELECT DISTINCT d.object_id
FROM decision d
JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = d.pixel_sha256
WHERE d.object_id = ANY (%(object_ids)s)
ORDER BY d.object_id

-- name: pool_named
-- The objects behind a URI: one version where it is named, else all known versions of that key.
SELECT object_id
FROM object
WHERE bucket = %(bucket)s AND key = %(key)s
  AND (%(version_id)s::text IS NULL OR version_id = %(version_id)s)
ORDER BY object_id

-- name: pool_embeddings
-- COPY of a batch, in the order of the ids: half the bytes of text, and nothing is parsed twice.
-- The hash as in pool_anchors; hashes by other recipes have no vector in this space.
COPY (
    SELECT v.object_id, e.embedding
    FROM (SELECT DISTINCT object_id, pixel_sha256
          FROM decision
          WHERE object_id = ANY (%(object_ids)s::bigint[])) AS v
    JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = v.pixel_sha256
    ORDER BY v.object_id
) TO STDOUT (FORMAT binary)
