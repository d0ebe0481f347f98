-- Makes the ledger forget an image; the rows that record the erasure stay.

-- name: erasable
-- The versions of a key, or one of them.
SELECT object_id FROM object
WHERE bucket = %(bucket)s AND key = %(key)s
  AND (%(version_id)s::text IS NULL OR version_id = %(version_id)s)

-- name: named_versions
-- The objects of exact versions.
SELECT o.object_id
FROM unnest(%(bucket)s::text[], %(key)s::text[], %(version_id)s::text[])
         AS v (bucket, key, version_id)
JOIN object o ON (o.bucket, o.key, o.version_id) = (v.bucket, v.key, v.version_id)

-- name: adopt_salt
-- Only while no mark was made with the ledger's own salt.
UPDATE tombstone_salt SET salt = %(salt)s
WHERE salt <> %(salt)s AND NOT EXISTS (SELECT FROM tombstone)

-- name: with_the_same_image
-- The objects, and every other one with the bytes or the pixels of one of them: erasing an image
-- while a copy of it stays under another key would erase nothing.
WITH wanted AS (
    SELECT content_sha256, pixel_sha256 FROM object WHERE object_id = ANY (%(object_ids)s)
    UNION
    SELECT NULL, pixel_sha256 FROM decision
    WHERE object_id = ANY (%(object_ids)s) AND pixel_sha256 IS NOT NULL
    UNION
    SELECT NULL, pixel_sha256 FROM object_in_space
    WHERE object_id = ANY (%(object_ids)s) AND pixel_sha256 IS NOT NULL
)
SELECT object_id FROM object WHERE object_id = ANY (%(object_ids)s)
UNION
SELECT o.object_id FROM object o JOIN wanted w ON o.content_sha256 = w.content_sha256
UNION
SELECT o.object_id FROM object o JOIN wanted w ON o.pixel_sha256 = w.pixel_sha256
UNION
SELECT s.object_id FROM object_in_space s JOIN wanted w ON s.pixel_sha256 = w.pixel_sha256

-- name: erasure_facts
-- What is needed to erase them everywhere.
SELECT o.object_id, o.bucket, o.key, o.version_id, o.content_sha256, o.thumbnail_key, o.erased_at,
       array_remove(array_agg(DISTINCT d.pixel_sha256) || array_agg(DISTINCT s.pixel_sha256)
                    || o.pixel_sha256, NULL) AS pixels,
       array_remove(array_agg(DISTINCT c.name), NULL) AS collections
FROM object o
LEFT JOIN decision d USING (object_id)
LEFT JOIN object_in_space s USING (object_id)
LEFT JOIN collection c USING (collection_id)
WHERE o.object_id = ANY (%(object_ids)s)
GROUP BY o.object_id ORDER BY o.object_id

-- name: bury
-- First step: from now on a repeated event can only be decided as gone. A version that was buried
-- before its bytes were read is buried again with them.
INSERT INTO tombstone (bucket, key_hash, content_hash, salt, reason)
SELECT %(bucket)s, %(version_mark)s, %(content_mark)s, %(salt)s, %(reason)s
WHERE NOT EXISTS (
    SELECT FROM tombstone WHERE key_hash = %(version_mark)s
    AND (%(content_mark)s::bytea IS NULL OR content_hash = %(content_mark)s)
)

-- name: lock_objects
-- Before the collections, and in key order: the order in which a decision takes these locks.
SELECT FROM object WHERE object_id = ANY (%(object_ids)s)
ORDER BY bucket, key, version_id FOR NO KEY UPDATE

-- name: blank_objects
-- Last step, so that an interrupted erasure still finds the facts that it needs.
UPDATE object SET etag = NULL, size_bytes = NULL, content_sha256 = NULL, pixel_sha256 = NULL,
       image_facts = NULL, quality = NULL, captured_at = NULL, thumbnail_key = NULL,
       stored_at = NULL,
       erased_at = coalesce(erased_at, now())
WHERE object_id = ANY (%(object_ids)s)

-- name: drop_from_spaces
-- Its rows in spaces that are being built; they will be read again.
DELETE FROM object_in_space WHERE object_id = ANY (%(object_ids)s)

-- name: drop_arrivals
-- The switch need not wait for it any more.
DELETE FROM shadow_arrival WHERE object_id = ANY (%(object_ids)s)

-- name: blank_items
-- Snapshots list it permanently, but without its checksum.
UPDATE snapshot_item SET checksum = NULL
WHERE object_id = ANY (%(object_ids)s) AND checksum IS NOT NULL

-- name: drop_vectors
-- Unless another object, which is not erased, has the same pixels.
DELETE FROM embedding e WHERE e.pixel_sha256 = ANY (%(pixels)s)
  AND NOT EXISTS (SELECT FROM decision d WHERE d.pixel_sha256 = e.pixel_sha256)
  AND NOT EXISTS (SELECT FROM object o WHERE o.pixel_sha256 = e.pixel_sha256)
  AND NOT EXISTS (SELECT FROM object_in_space s WHERE s.pixel_sha256 = e.pixel_sha256)
RETURNING e.pixel_sha256

-- name: drop_protected
-- Vectors of evaluation files that show the very same picture.
DELETE FROM protected_image WHERE pixel_sha256 = ANY (%(pixels)s)

-- name: still_used
-- Pixels that another object has as well: their thumbnail stays too.
SELECT DISTINCT d.pixel_sha256 FROM decision d
WHERE d.pixel_sha256 = ANY (%(pixels)s) AND d.object_id <> ALL (%(object_ids)s)

-- name: body_tables
-- Derived indexes hold copies of vectors.
SELECT body_table FROM neighbor_index
