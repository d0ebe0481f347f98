-- Evaluation sets: declared, withdrawn, and what is in them. Members are read as they are now,
-- whatever point a selection is made at: an image must not be chosen because its twin came later.

-- name: declare
-- A set comes into force at once.
INSERT INTO protected_set (collection_id, kind, snapshot_id, bucket, prefix, folder, distance, who,
                           why, declared_seq)
SELECT c.collection_id, %(kind)s, %(snapshot_id)s, %(bucket)s, %(prefix)s, %(folder)s,
       %(distance)s, %(who)s, %(why)s, c.seq
FROM collection c WHERE c.collection_id = %(collection_id)s
RETURNING protected_id

-- name: add_images
-- Vectors of the files of a folder; equal pictures count once.
INSERT INTO protected_image (protected_id, space_id, pixel_sha256, embedding)
SELECT %(protected_id)s, %(space_id)s, v.pixel_sha256, v.embedding
FROM unnest(%(pixels)b::bytea[], %(embeddings)b::halfvec[]) AS v (pixel_sha256, embedding)
ON CONFLICT DO NOTHING

-- name: withdraw
-- Those of the ids that are in force; the vectors of files go with them.
WITH withdrawn AS (
    UPDATE protected_set SET withdrawn_at = clock_timestamp(),
           withdrawn_seq = (SELECT seq FROM collection WHERE collection_id = %(collection_id)s)
    WHERE collection_id = %(collection_id)s AND protected_id = ANY (%(protected_ids)s)
      AND withdrawn_at IS NULL
    RETURNING protected_id
), dropped AS (
    DELETE FROM protected_image i USING withdrawn w WHERE i.protected_id = w.protected_id
)
SELECT protected_id FROM withdrawn

-- name: in_force
-- The sets of a collection, the oldest first.
SELECT p.protected_id, p.kind, p.snapshot_id, s.name AS snapshot_name, p.bucket, p.prefix, p.folder,
       p.distance, p.who, p.why, p.declared_at, p.withdrawn_at
FROM protected_set p LEFT JOIN snapshot s USING (snapshot_id)
WHERE p.collection_id = %(collection_id)s AND (p.withdrawn_at IS NULL OR %(all)s)
ORDER BY p.declared_at, p.protected_id

-- name: member_vectors
-- The pictures of a set in a space. An object has a pixel hash per recipe and its row only the
-- first: decisions, of whatever collection, know them all. One that was erased is in none of them.
SELECT e.pixel_sha256, e.embedding
FROM embedding e
WHERE e.space_id = %(space_id)s AND e.pixel_sha256 IN (
    SELECT d.pixel_sha256 FROM decision d
    WHERE d.object_id IN (
        SELECT i.object_id FROM snapshot_item i WHERE i.snapshot_id = %(snapshot_id)s::text
        UNION ALL
        SELECT o.object_id FROM object o
        WHERE o.bucket = %(bucket)s::text AND starts_with(o.key, %(prefix)s::text)
    ))
UNION ALL
SELECT i.pixel_sha256, i.embedding FROM protected_image i
WHERE i.protected_id = %(protected_id)s AND i.space_id = %(space_id)s
ORDER BY pixel_sha256

-- name: members_without_vector
-- Pictures of a set that the space knows nothing of: nothing can keep away from them. Of objects,
-- those that some collection keeps or holds for duplicates now.
SELECT (
    SELECT count(DISTINCT d.object_id)
    FROM decision d JOIN collection c USING (collection_id, generation)
    WHERE d.valid_to_seq IS NULL AND d.outcome IN ('kept', 'duplicate')
      AND d.object_id IN (
        SELECT i.object_id FROM snapshot_item i WHERE i.snapshot_id = %(snapshot_id)s::text
        UNION ALL
        SELECT o.object_id FROM object o
        WHERE o.bucket = %(bucket)s::text AND starts_with(o.key, %(prefix)s::text))
      AND NOT EXISTS (
        SELECT FROM decision a
        JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = a.pixel_sha256
        WHERE a.object_id = d.object_id)
) + (
    SELECT count(*) FROM protected_image i
    WHERE i.protected_id = %(protected_id)s AND i.space_id <> %(space_id)s
      AND NOT EXISTS (SELECT FROM protected_image s
                      WHERE s.protected_id = i.protected_id AND s.space_id = %(space_id)s)
)

-- name: stand_for_members
-- Images kept at a point that represent a picture of a set: the same picture, at any distance.
SELECT DISTINCT d.representative_object_id
FROM decision d
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.outcome = 'duplicate' AND holds_at(d.valid_from_seq, d.valid_to_seq, %(at_seq)s)
  AND d.object_id IN (
    SELECT i.object_id FROM snapshot_item i WHERE i.snapshot_id = %(snapshot_id)s::text
    UNION ALL
    SELECT o.object_id FROM object o
    WHERE o.bucket = %(bucket)s::text AND starts_with(o.key, %(prefix)s::text))
ORDER BY 1
