-- name: outcome_counts
-- Progress, asked several times a second: one row per outcome and reason that is open now.
SELECT d.outcome, d.reason, count(*)
FROM decision d JOIN collection c USING (collection_id, generation)
WHERE c.name = %(collection)s AND d.valid_to_seq IS NULL
GROUP BY d.outcome, d.reason
ORDER BY d.outcome, count(*) DESC

-- name: current_outcomes
-- Every object of a collection with its open decision, in the order of arrival.
SELECT o.object_id, o.bucket, o.key, o.version_id, o.content_sha256, o.thumbnail_key, o.quality,
       d.outcome, d.reason, d.representative_object_id, d.distance
FROM decision d
JOIN collection c USING (collection_id, generation)
JOIN object o USING (object_id)
WHERE c.name = %(collection)s AND d.valid_to_seq IS NULL
ORDER BY o.object_id

-- name: snapshot_objects
-- What a snapshot holds: the objects and where their copies are.
SELECT i.object_id, i.rank, i.split, i.destination_key, o.bucket, o.key, o.version_id,
       o.content_sha256
FROM snapshot_item i JOIN object o USING (object_id)
WHERE i.snapshot_id = %(snapshot_id)s
ORDER BY i.rank
