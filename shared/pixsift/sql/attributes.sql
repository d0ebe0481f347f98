-- name: sidecar_objects
-- The objects a file names, as far as this collection ever judged them. A row without a bucket
-- means the collection's own buckets; one without a version means every version of the key.
SELECT v.place, o.object_id
FROM unnest(%(places)s::int[], %(buckets)s::text[], %(keys)s::text[], %(versions)s::text[])
         AS v (place, bucket, key, version_id)
JOIN object o
  ON o.key = v.key AND (v.version_id IS NULL OR o.version_id = v.version_id)
  AND o.bucket = ANY (CASE WHEN v.bucket IS NOT NULL THEN ARRAY[v.bucket]
                           ELSE %(source_buckets)s::text[] END)
WHERE o.erased_at IS NULL
  AND EXISTS (SELECT FROM decision d
              WHERE d.object_id = o.object_id AND d.collection_id = %(collection_id)s)
ORDER BY v.place, o.object_id

-- name: sidecar_open
-- Under the lock: what the sidecars said so far.
SELECT object_id, attributes
FROM attribute
WHERE collection_id = %(collection_id)s AND object_id = ANY (%(object_ids)s)
  AND source = 'sidecar' AND valid_to_seq IS NULL

-- name: attribute_overview
-- How many objects have each attribute, by source, and how many values it takes. A null (removed by
-- a sidecar) does not count.
SELECT t.name, a.source, count(*), count(DISTINCT t.value)
FROM attribute a, jsonb_each_text(a.attributes) AS t (name, value)
WHERE a.collection_id = %(collection_id)s AND a.valid_to_seq IS NULL AND t.value IS NOT NULL
GROUP BY t.name, a.source
ORDER BY t.name, a.source
