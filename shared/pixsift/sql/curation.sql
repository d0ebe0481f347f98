-- The outcomes of a folder's files, for its manifest and report: in pages, by key, so that memory
-- does not grow with the folder.

-- name: images_by_key
-- A file has one version at a time: all others are gone.
SELECT o.object_id, o.bucket, o.key, o.version_id, o.thumbnail_key, o.size_bytes, o.image_facts,
       o.captured_at, encode(o.content_sha256, 'hex') AS content_sha256,
       d.outcome, d.reason, d.distance, d.detail ->> 'message' AS message,
       coalesce(d.detail -> 'flags', '[]') AS flags, r.key AS representative
FROM decision d
JOIN collection c USING (collection_id, generation)
JOIN object o ON o.object_id = d.object_id
LEFT JOIN object r ON r.object_id = d.representative_object_id
WHERE d.collection_id = %(collection_id)s AND d.valid_to_seq IS NULL AND d.outcome <> 'gone'
  AND (%(outcome)s::text IS NULL OR d.outcome = %(outcome)s)
  AND (NOT %(flagged)s OR jsonb_array_length(coalesce(d.detail -> 'flags', '[]')) > 0)
  AND (NOT %(with_duplicates)s OR EXISTS (
        SELECT FROM decision x
        WHERE x.representative_object_id = d.object_id AND x.collection_id = d.collection_id
          AND x.generation = d.generation AND x.valid_to_seq IS NULL AND x.outcome = 'duplicate'))
  AND o.key > %(after)s
ORDER BY o.key LIMIT %(limit)s

-- name: duplicates_of
-- The nearest of each, and how many there are: one image may stand for a hundred thousand.
SELECT representative_object_id, object_id, key, thumbnail_key, reason, distance, in_all
FROM (
  SELECT d.representative_object_id, o.object_id, o.key, o.thumbnail_key, d.reason, d.distance,
         count(*) OVER (PARTITION BY d.representative_object_id) AS in_all,
         row_number() OVER (PARTITION BY d.representative_object_id
                            ORDER BY d.distance NULLS FIRST, o.key) AS place
  FROM decision d
  JOIN collection c USING (collection_id, generation)
  JOIN object o ON o.object_id = d.object_id
  WHERE d.collection_id = %(collection_id)s AND d.valid_to_seq IS NULL AND d.outcome = 'duplicate'
    AND d.representative_object_id = ANY (%(object_ids)s)
) each
WHERE place <= %(most)s
ORDER BY representative_object_id, place

-- name: images_of
-- Keys and thumbnails of some objects.
SELECT object_id, bucket, key, version_id, thumbnail_key
FROM object
WHERE object_id = ANY (%(object_ids)s)

-- name: last_choice
-- The snapshot of the last request: the same request at the same point gets an older snapshot.
SELECT q.snapshot_id FROM snapshot_request q JOIN collection c USING (collection_id)
WHERE c.name = %(collection)s AND q.snapshot_id IS NOT NULL
ORDER BY q.received_at DESC LIMIT 1
