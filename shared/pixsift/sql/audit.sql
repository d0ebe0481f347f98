-- What an audit reads, all of it as it was at one seq: rows are only added and closed, so no long
-- transaction is needed for a consistent picture.

-- name: audited
-- The point the audit is about, and the rule that held there.
SELECT c.seq, c.generation, g.epsilon, g.second_look, c.space_id, m.dimension
FROM collection c JOIN generation g USING (collection_id, generation)
JOIN model m ON m.space_id = c.space_id
WHERE c.collection_id = %(collection_id)s

-- name: kept_images
-- Representatives with their vectors, oldest first.
SELECT r.object_id, r.content_sha256, r.pixel_sha256, e.embedding, e.look || e.change AS look
FROM representative r JOIN embedding e USING (space_id, pixel_sha256)
WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
  AND holds_at(r.valid_from_seq, r.valid_to_seq, %(seq)s)
ORDER BY r.valid_from_seq, r.object_id

-- name: duplicate_claims
-- A page of duplicates with what they claim.
SELECT d.object_id, d.representative_object_id, d.reason, d.distance, o.content_sha256,
       d.pixel_sha256, e.embedding, e.look || e.change AS look
FROM decision d JOIN object o USING (object_id)
LEFT JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = d.pixel_sha256
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.outcome = 'duplicate' AND d.object_id > %(after)s
  AND holds_at(d.valid_from_seq, d.valid_to_seq, %(seq)s)
ORDER BY d.object_id LIMIT %(limit)s

-- name: unmatched_kept
-- INV1: every kept image is a representative, and every representative is kept, or remembered after
-- expiry.
SELECT coalesce(d.object_id, r.object_id) AS object_id,
       CASE WHEN r.object_id IS NULL THEN 'is kept, but is not a representative'
            ELSE 'represents, but is not kept' END AS wrong
FROM (SELECT object_id, outcome, reason FROM decision
      WHERE collection_id = %(collection_id)s AND generation = %(generation)s
        AND holds_at(valid_from_seq, valid_to_seq, %(seq)s)
        AND (outcome = 'kept' OR outcome = 'gone' AND reason = 'expired')) AS d
FULL JOIN
     (SELECT object_id FROM representative
      WHERE collection_id = %(collection_id)s AND generation = %(generation)s
        AND holds_at(valid_from_seq, valid_to_seq, %(seq)s)) AS r
     USING (object_id)
WHERE d.object_id IS NULL OR r.object_id IS NULL AND d.outcome = 'kept'

-- name: several_outcomes
-- INV1: the index forbids it; it may have been lost in a restore.
SELECT object_id FROM decision
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND holds_at(valid_from_seq, valid_to_seq, %(seq)s)
GROUP BY object_id HAVING count(*) > 1

-- name: undecided
-- Taken back and not decided again yet: they should be in the queue.
SELECT count(DISTINCT object_id) FROM decision d
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND NOT EXISTS (SELECT FROM decision o WHERE o.collection_id = d.collection_id
                  AND o.generation = d.generation AND o.object_id = d.object_id
                  AND o.valid_to_seq IS NULL)

-- name: seqs_used
-- INV4: each number was used by some transaction: decisions, attributes, rulings or a switch.
SELECT DISTINCT seq FROM (
    SELECT valid_from_seq AS seq FROM decision WHERE collection_id = %(collection_id)s
    UNION ALL SELECT valid_to_seq FROM decision WHERE collection_id = %(collection_id)s
    UNION ALL SELECT valid_from_seq FROM attribute WHERE collection_id = %(collection_id)s
    UNION ALL SELECT valid_to_seq FROM attribute WHERE collection_id = %(collection_id)s
    UNION ALL SELECT switched_at_seq FROM generation WHERE collection_id = %(collection_id)s
    UNION ALL SELECT valid_from_seq FROM ruling WHERE collection_id = %(collection_id)s
    UNION ALL SELECT valid_to_seq FROM ruling WHERE collection_id = %(collection_id)s
) AS used WHERE seq IS NOT NULL AND seq <= %(seq)s ORDER BY seq

-- name: turns
-- INV4: each number has its turn's row, from the first that was recorded on.
SELECT seq FROM turn WHERE collection_id = %(collection_id)s AND seq <= %(seq)s ORDER BY seq

-- name: strangers
-- INV6: a representative of another space, without a vector, or with one of another length.
SELECT r.object_id,
       CASE WHEN r.space_id <> %(space_id)s THEN 'is of another embedding space'
            WHEN e.embedding IS NULL THEN 'has no vector'
            ELSE 'has a vector of another length' END AS wrong
FROM representative r LEFT JOIN embedding e USING (space_id, pixel_sha256)
WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
  AND r.valid_to_seq IS NULL
  AND (r.space_id <> %(space_id)s OR e.embedding IS NULL
       OR vector_dims(e.embedding) <> %(dimension)s)

-- name: traces_of_erased
-- INV9: facts of erased objects, and objects with erased bytes. The salt comes from its own table,
-- which has one row: with a salt from each tombstone, every pair would be hashed.
SELECT o.object_id, 'is erased, but has facts left' AS wrong FROM object o
WHERE o.erased_at IS NOT NULL
  AND (o.content_sha256 IS NOT NULL OR o.pixel_sha256 IS NOT NULL OR o.quality IS NOT NULL
       OR o.image_facts IS NOT NULL OR o.thumbnail_key IS NOT NULL
       OR EXISTS (SELECT FROM attribute a WHERE a.object_id = o.object_id)
       OR EXISTS (SELECT FROM decision d
                  WHERE d.object_id = o.object_id AND d.pixel_sha256 IS NOT NULL)
       OR EXISTS (SELECT FROM object_in_space s WHERE s.object_id = o.object_id))
UNION ALL
SELECT o.object_id, 'has the bytes of an erased image'
FROM object o JOIN tombstone t
     ON t.content_hash = sha256((SELECT salt FROM tombstone_salt) || o.content_sha256)

-- name: unpublished_redactions
-- INV9: snapshots that failed as one of their images was erased; none of its files may be in S3.
SELECT s.snapshot_id, s.name, i.destination_key, i.object_id
FROM snapshot s JOIN snapshot_item i USING (snapshot_id)
WHERE s.collection_id = %(collection_id)s AND s.state <> 'published'
  AND i.copy_state = 'redacted'
ORDER BY s.snapshot_id, i.rank

-- name: vectors_of_nobody
-- INV9: a vector is stored in the transaction that decides about its object.
SELECT count(*) FROM embedding e
WHERE NOT EXISTS (SELECT FROM decision d WHERE d.pixel_sha256 = e.pixel_sha256)
  AND NOT EXISTS (SELECT FROM object o WHERE o.pixel_sha256 = e.pixel_sha256)

-- name: published_items
-- INV7: what the lists say is in the curated bucket.
SELECT s.snapshot_id, s.name, s.request -> 'export' ->> 'mode' AS mode, i.destination_key,
       i.copy_state, i.object_id
FROM snapshot s JOIN snapshot_item i USING (snapshot_id)
WHERE s.collection_id = %(collection_id)s AND s.state = 'published'
ORDER BY s.snapshot_id, i.rank

-- name: miscounted
-- INV10: counters of the generation in use that differ from a recount. One statement, which sees
-- both at one moment.
WITH recounted AS (
    SELECT d.outcome, d.reason, f.flag, count(*) AS objects
    FROM decision d JOIN collection c USING (collection_id, generation)
    CROSS JOIN LATERAL counted_under(d.detail) AS f (flag)
    WHERE d.collection_id = %(collection_id)s AND d.valid_to_seq IS NULL
    GROUP BY 1, 2, 3
), stored AS (
    SELECT n.outcome, n.reason, n.flag, n.objects
    FROM outcome_count n JOIN collection c USING (collection_id, generation)
    WHERE n.collection_id = %(collection_id)s
)
SELECT outcome, reason, flag, coalesce(s.objects, 0) AS stored, coalesce(r.objects, 0) AS recounted
FROM recounted r FULL JOIN stored s USING (outcome, reason, flag)
WHERE coalesce(s.objects, 0) <> coalesce(r.objects, 0)
ORDER BY outcome, reason, flag
