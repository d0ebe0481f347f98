-- What keep-best compares, and what keeps a representative in its place.

-- name: merits
-- Facts of objects; flags stand with their decisions.
SELECT object_id, (quality ->> 'sharpness')::float8,
       coalesce((image_facts ->> 'width')::bigint * (image_facts ->> 'height')::bigint, 0)
FROM object WHERE object_id = ANY (%(object_ids)s)

-- name: holds
-- Snapshots of the collection that list an object, and evaluation sets of it whose prefix the
-- object's key has: from which seq on, and up to which.
SELECT i.object_id, coalesce(s.resolved_seq, s.at_seq), NULL::bigint
FROM snapshot_item i JOIN snapshot s USING (snapshot_id)
WHERE i.object_id = ANY (%(object_ids)s) AND s.collection_id = %(collection_id)s
UNION ALL
SELECT o.object_id, coalesce(p.declared_seq, 0), p.withdrawn_seq
FROM object o JOIN protected_set p ON p.bucket = o.bucket AND starts_with(o.key, p.prefix)
WHERE o.object_id = ANY (%(object_ids)s) AND p.collection_id = %(collection_id)s
  AND p.kind = 'prefix'

-- name: represent_now
-- Representatives among the objects, with the outcome that holds (gone: it is only remembered) and
-- how many duplicates they have, counted to one more than are compared: a camera that stands still
-- has one representative of a hundred thousand, which every arrival asks for.
SELECT d.object_id, d.outcome, d.detail,
       (SELECT count(*) FROM (
            SELECT FROM decision c
            WHERE c.representative_object_id = d.object_id AND c.collection_id = d.collection_id
              AND c.generation = d.generation AND c.outcome = 'duplicate'
              AND c.valid_to_seq IS NULL
            LIMIT %(most)s + 1) AS counted)
FROM decision d
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.object_id = ANY (%(object_ids)s) AND d.valid_to_seq IS NULL
