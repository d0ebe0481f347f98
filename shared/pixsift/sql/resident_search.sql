-- name: head
-- First: everything up to this seq is committed, and the reads after this one see it.
SELECT seq, generation FROM collection WHERE collection_id = %(collection_id)s

-- name: opened
-- Representatives that became valid after the mirror's watermark, up to the new one.
SELECT r.object_id, r.valid_from_seq, e.embedding
FROM representative r JOIN embedding e USING (space_id, pixel_sha256)
WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
  AND r.valid_from_seq > %(after)s AND r.valid_from_seq <= %(head)s
  AND (r.valid_to_seq IS NULL OR r.valid_to_seq > %(head)s)
ORDER BY r.valid_from_seq, r.object_id

-- name: closed
-- Representatives that ceased between the two.
SELECT object_id, valid_from_seq FROM representative
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND valid_to_seq > %(after)s AND valid_to_seq <= %(head)s AND valid_from_seq <= %(after)s
