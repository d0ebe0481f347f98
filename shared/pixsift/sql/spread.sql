-- How the newest images spread. Bounded by a number of images, so that a look costs the same at any
-- size of the collection.

-- name: newest_by_value
-- Of the newest decisions: how many per value of an attribute and outcome.
SELECT v.value, n.outcome, count(*) AS images
FROM (
    SELECT object_id, outcome FROM decision
    WHERE collection_id = %(collection_id)s AND generation = %(generation)s
      AND valid_to_seq IS NULL
    ORDER BY valid_from_seq DESC LIMIT %(newest)s
) n
LEFT JOIN LATERAL (
    SELECT a.attributes ->> %(attribute)s AS value FROM attribute a
    WHERE a.collection_id = %(collection_id)s AND a.object_id = n.object_id
      AND a.valid_to_seq IS NULL AND a.attributes ? %(attribute)s
    ORDER BY array_position(ARRAY['exif', 'key', 'metadata', 'sidecar'], a.source) DESC LIMIT 1
) v ON true
GROUP BY v.value, n.outcome

-- name: newest_numbers
-- Of the newest decisions with an outcome: a quality metric, or the distance to the kept image.
SELECT CASE WHEN %(metric)s::text = 'distance' THEN n.distance
            ELSE (o.quality ->> %(metric)s::text)::float8 END AS value
FROM (
    SELECT object_id, distance FROM decision
    WHERE collection_id = %(collection_id)s AND generation = %(generation)s
      AND valid_to_seq IS NULL AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)
    ORDER BY valid_from_seq DESC LIMIT %(newest)s
) n JOIN object o USING (object_id)
