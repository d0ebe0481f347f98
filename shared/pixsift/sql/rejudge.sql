-- Deciding single objects again, or taking their decision back, in the generation in use.

-- name: rule_in_use
-- The rule of the generation in use.
SELECT c.seq,
       coalesce(t.token, '00000000-0000-0000-0000-000000000000') AS token,
       g.generation, g.epsilon, g.second_look, c.space_id
FROM collection c JOIN generation g USING (collection_id, generation)
LEFT JOIN turn t USING (collection_id, seq)
WHERE c.collection_id = %(collection_id)s

-- name: subjects
-- The objects that must be decided again together: the kept and duplicate ones among those asked
-- for, those that a ruling rejected, and the duplicates of the kept ones. Kept ones come first,
-- oldest first, so that right decisions stay; then the order of a removed representative.
SELECT o.object_id, o.content_sha256, d.pixel_sha256, e.embedding, e.look || e.change AS look
FROM decision d JOIN object o USING (object_id)
JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = d.pixel_sha256
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.valid_to_seq IS NULL AND o.content_sha256 IS NOT NULL
  AND (d.object_id = ANY (%(object_ids)s)
           AND (d.outcome IN ('kept', 'duplicate') OR d.outcome = 'rejected' AND d.reason = 'ruled')
       OR d.representative_object_id = ANY (%(object_ids)s) AND d.outcome = 'duplicate')
ORDER BY d.outcome = 'kept' DESC, CASE WHEN d.outcome = 'kept' THEN d.valid_from_seq END,
         redecide_order(o.quality, d.valid_from_seq, o.object_id)

-- name: living
-- Representatives among these objects, or with one of these bytes or pixels.
SELECT r.object_id, r.content_sha256, r.pixel_sha256, e.embedding, e.look || e.change AS look
FROM representative r JOIN embedding e USING (space_id, pixel_sha256)
WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
  AND r.valid_to_seq IS NULL
  AND (r.object_id = ANY (%(object_ids)s) OR r.content_sha256 = ANY (%(contents)s)
       OR r.pixel_sha256 = ANY (%(pixels)s) OR r.valid_from_seq > %(watermark)s)

-- name: standing
-- Under the lock: the outcomes that hold now.
SELECT object_id, outcome, reason, representative_object_id, distance, detail
FROM decision
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND object_id = ANY (%(object_ids)s) AND valid_to_seq IS NULL

-- name: arrived
-- The objects in the order of arrival, as in states_at of generations.sql. Ids do not have this
-- order: a batch gets its ids in the order of the keys, and a version may be known before it is
-- judged. Within a batch the first row of any generation counts: a later row may have been written
-- while a ruling had changed the order.
SELECT a.object_id
FROM (SELECT object_id,
             coalesce(min(valid_from_seq) FILTER (WHERE outcome IN ('kept', 'duplicate')
                                                     OR reason = 'ruled'),
                      min(valid_from_seq)) AS seq
      FROM decision
      WHERE collection_id = %(collection_id)s AND generation = %(generation)s
        AND object_id = ANY (%(object_ids)s)
      GROUP BY object_id) AS a
JOIN decision d ON d.object_id = a.object_id AND d.collection_id = %(collection_id)s
               AND d.valid_from_seq = a.seq
GROUP BY a.object_id, a.seq
ORDER BY a.seq, min(d.decision_id)

-- name: versions_under_key
-- The objects of a key, or of one version of it, that the ledger knows.
SELECT object_id, bucket, key, version_id, etag, size_bytes FROM object
WHERE bucket = %(bucket)s AND key = %(key)s AND erased_at IS NULL
  AND (%(version_id)s::text IS NULL OR version_id = %(version_id)s)
ORDER BY object_id
