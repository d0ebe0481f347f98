-- Reads for the comparison of snapshots.

-- name: groups_of
-- The duplicate group of some objects now, named by its representative.
SELECT d.object_id, coalesce(d.representative_object_id, d.object_id) AS of_group
FROM decision d JOIN collection c USING (collection_id, generation)
WHERE c.name = %(collection)s AND d.object_id = ANY(%(object_ids)s) AND d.valid_to_seq IS NULL
  AND d.outcome IN ('kept', 'duplicate')

-- name: items
-- Where the copies of a snapshot are, and how long they must be.
SELECT i.destination_key, i.copy_state, o.size_bytes
FROM snapshot_item i JOIN object o USING (object_id) WHERE i.snapshot_id = %(snapshot_id)s
ORDER BY i.rank
