-- The ledger's versions in a range of keys, to compare with the bucket's listing.

-- name: known_in_range
-- One row per version in a half-open range of keys (bytes, as S3 orders them), with the outcome
-- that holds now in each of the collections that were asked for. Erased ones are among them: gone
-- is an outcome too, and a source that was left in its bucket must not look as if it never arrived.
SELECT o.key, o.version_id,
       coalesce(jsonb_object_agg(d.collection_id, d.outcome)
                FILTER (WHERE d.collection_id IS NOT NULL), '{}') AS outcomes,
       o.erased_at IS NOT NULL AS erased
FROM object o
LEFT JOIN (decision d JOIN collection c
           ON c.collection_id = d.collection_id AND c.generation = d.generation)
     ON d.object_id = o.object_id AND d.valid_to_seq IS NULL
    AND d.collection_id = ANY (%(collection_ids)s)
WHERE o.bucket = %(bucket)s AND o.key > %(after)s
  AND (%(to)s::text IS NULL OR o.key <= %(to)s) AND starts_with(o.key, %(prefix)s)
GROUP BY o.object_id
ORDER BY o.key, o.object_id

-- name: failed_versions
-- Objects whose outcome is failed: they may be tried again.
SELECT o.bucket, o.key, o.version_id, o.etag, o.size_bytes, d.reason, c.name AS collection,
       d.decided_at
FROM decision d JOIN collection c USING (collection_id, generation) JOIN object o USING (object_id)
WHERE d.outcome = 'failed' AND d.valid_to_seq IS NULL
ORDER BY o.bucket, o.key, o.version_id

-- name: recent_anomalies
-- The newest messages that were not object events.
SELECT anomaly_id, queue, message_id, reason, received_at, body
FROM anomaly ORDER BY anomaly_id DESC LIMIT %(limit)s
