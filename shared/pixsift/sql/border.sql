-- Pairs near the limits of a rule: what is a duplicate by little, and what is kept by little.

-- name: duplicate_pairs
-- Near-duplicates with their representative: the farthest, and some of all, so that both limits
-- have pairs near them. The sample is the same every time.
WITH near AS (
    SELECT object_id, representative_object_id, distance FROM decision
    WHERE collection_id = %(collection_id)s AND generation = %(generation)s
      AND outcome = 'duplicate' AND reason IN ('near', 'near_look') AND valid_to_seq IS NULL
)
SELECT object_id, representative_object_id, distance FROM (
    (SELECT * FROM near ORDER BY distance DESC, object_id LIMIT %(limit)s)
    UNION
    (SELECT * FROM near ORDER BY hashint8(object_id), object_id LIMIT %(limit)s)
) AS chosen ORDER BY distance DESC, object_id

-- name: near_misses
-- Kept images for which another one was within epsilon, but not the same picture; the newest first.
SELECT object_id, (detail -> 'nearest' ->> 'object_id')::bigint AS representative_object_id,
       (detail -> 'nearest' ->> 'distance')::float8 AS distance
FROM decision
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND outcome = 'kept' AND valid_to_seq IS NULL AND detail ? 'nearest'
ORDER BY valid_from_seq DESC, object_id DESC LIMIT %(limit)s

-- name: newest_kept
-- Vectors of the newest kept images, in the order of arrival.
COPY (
    SELECT r.object_id, e.embedding FROM (
        SELECT object_id, space_id, pixel_sha256, valid_from_seq FROM representative
        WHERE collection_id = %(collection_id)s AND generation = %(generation)s
          AND valid_to_seq IS NULL
        ORDER BY valid_from_seq DESC, object_id DESC LIMIT %(limit)s
    ) r JOIN embedding e USING (space_id, pixel_sha256)
    ORDER BY r.valid_from_seq, r.object_id
) TO STDOUT (FORMAT binary)

-- name: looks
-- What the second look compares, by object.
SELECT DISTINCT ON (d.object_id) d.object_id, e.look || e.change AS look
FROM decision d JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = d.pixel_sha256
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.object_id = ANY(%(object_ids)s)
ORDER BY d.object_id, d.valid_from_seq DESC

-- name: shown
-- What is shown of the images of the pairs; erased ones are left out.
SELECT object_id, bucket, key, version_id, thumbnail_key IS NOT NULL AS has_thumbnail
FROM object WHERE object_id = ANY(%(object_ids)s) AND erased_at IS NULL
