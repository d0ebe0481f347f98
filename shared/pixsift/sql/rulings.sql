-- Reads the rulings of people about images; they are written in a turn, see history.sql.

-- name: rulings_touching
-- Those in force about any of these objects, the oldest first.
SELECT kind, object_id, other_object_id AS other
FROM ruling
WHERE collection_id = %(collection_id)s AND valid_to_seq IS NULL
  AND (object_id = ANY (%(object_ids)b::bigint[])
       OR other_object_id = ANY (%(object_ids)b::bigint[]))
ORDER BY valid_from_seq, said_at, ruling_id

-- name: rulings_at
-- All that were in force at a point, the oldest first.
SELECT kind, object_id, other_object_id AS other
FROM ruling
WHERE collection_id = %(collection_id)s AND holds_at(valid_from_seq, valid_to_seq, %(seq)s)
ORDER BY valid_from_seq, said_at, ruling_id

-- name: rulings_changed
-- Objects about which something was said or taken back after a point; whether something that may
-- have put another image in the place of one was taken back.
SELECT v.object_id,
       bool_or(r.kind IN ('choose', 'same', 'useless') AND r.valid_to_seq IS NOT NULL)
FROM ruling r CROSS JOIN LATERAL (VALUES (r.object_id), (r.other_object_id)) AS v (object_id)
WHERE r.collection_id = %(collection_id)s AND v.object_id IS NOT NULL
  AND (r.valid_from_seq > %(seq)s OR r.valid_to_seq > %(seq)s)
GROUP BY v.object_id

-- name: versions_apart
-- Which of these versions are ruled not to be the same as another.
SELECT DISTINCT o.bucket, o.key, o.version_id
FROM unnest(%(buckets)b::text[], %(keys)b::text[], %(version_ids)b::text[])
         AS v (bucket, key, version_id)
JOIN object o ON (o.bucket, o.key, o.version_id) = (v.bucket, v.key, v.version_id)
JOIN ruling r ON r.collection_id = %(collection_id)s AND r.kind = 'not_same'
             AND r.valid_to_seq IS NULL
             AND (r.object_id = o.object_id OR r.other_object_id = o.object_id)

-- name: represented_by
-- Who represents each of these objects now: itself where it is kept. With what a decision needs.
SELECT r.object_id, r.content_sha256, r.pixel_sha256, e.embedding, e.look || e.change AS look,
       d.object_id AS represented
FROM decision d
JOIN representative r ON r.collection_id = d.collection_id AND r.generation = d.generation
     AND r.object_id = coalesce(d.representative_object_id, d.object_id)
     AND r.valid_to_seq IS NULL
JOIN embedding e ON e.space_id = r.space_id AND e.pixel_sha256 = r.pixel_sha256
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.object_id = ANY (%(object_ids)b::bigint[]) AND d.valid_to_seq IS NULL
  AND d.outcome IN ('kept', 'duplicate')

-- name: who_represents
-- As represented_by, at a point and without vectors: what an audit compares with.
SELECT object_id, coalesce(representative_object_id, object_id)
FROM decision
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND object_id = ANY (%(object_ids)b::bigint[]) AND outcome IN ('kept', 'duplicate')
  AND holds_at(valid_from_seq, valid_to_seq, %(seq)s)

-- name: standing_of
-- What an audit compares with rulings: the outcome and reason of these objects at a point.
SELECT object_id, outcome, reason, representative_object_id
FROM decision
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND object_id = ANY (%(object_ids)b::bigint[])
  AND holds_at(valid_from_seq, valid_to_seq, %(seq)s)

-- name: ruled_objects
-- What a ruling's own check needs of its objects, and of those with the same bytes or pixels that
-- are ruled to be kept.
SELECT o.object_id, o.bucket, o.key, o.version_id, o.erased_at IS NOT NULL AS erased,
       o.content_sha256, d.pixel_sha256, d.outcome, d.reason, d.representative_object_id
FROM object o
LEFT JOIN decision d ON d.collection_id = %(collection_id)s AND d.generation = %(generation)s
     AND d.object_id = o.object_id AND d.valid_to_seq IS NULL
WHERE o.object_id = ANY (%(object_ids)b::bigint[])

-- name: kept_by_ruling_like
-- Objects ruled to be kept that share bytes or pixels with one of these.
SELECT r.object_id
FROM ruling r
JOIN object o USING (object_id)
LEFT JOIN decision d ON d.collection_id = r.collection_id AND d.generation = %(generation)s
     AND d.object_id = r.object_id AND d.valid_to_seq IS NULL
WHERE r.collection_id = %(collection_id)s AND r.valid_to_seq IS NULL
  AND r.kind IN ('choose', 'also_keep')
  AND (o.content_sha256 = ANY (%(contents)b::bytea[]) OR d.pixel_sha256 = ANY (%(pixels)b::bytea[]))

-- name: chain
-- The objects, those they are the same as, and so on: there may be a contradiction.
WITH RECURSIVE linked (object_id) AS (
    SELECT unnest(%(object_ids)b::bigint[])
    UNION
    SELECT r.other_object_id FROM linked l
    JOIN ruling r ON r.collection_id = %(collection_id)s AND r.object_id = l.object_id
                 AND r.valid_to_seq IS NULL AND r.kind = 'same'
)
SELECT object_id FROM linked

-- name: records
-- Rulings as people and journals read them: of one object, of one batch, or made or taken back
-- after a point; oldest first.
SELECT r.ruling_id, c.name AS collection, r.kind, o.bucket, o.key, o.version_id,
       p.bucket AS other_bucket, p.key AS other_key, p.version_id AS other_version_id,
       r.who, r.why, r.batch, r.said_at, r.valid_from_seq, r.valid_to_seq
FROM ruling r
JOIN collection c USING (collection_id)
JOIN object o ON o.object_id = r.object_id
LEFT JOIN object p ON p.object_id = r.other_object_id
WHERE r.collection_id = %(collection_id)s
  AND (r.valid_from_seq > %(since)s OR r.valid_to_seq > %(since)s)
  AND (%(object_id)s::bigint IS NULL OR %(object_id)s IN (r.object_id, r.other_object_id))
  AND (%(ruling_ids)s::uuid[] IS NULL OR r.ruling_id = ANY (%(ruling_ids)s::uuid[]))
  AND (%(batch)s::uuid IS NULL OR r.batch = %(batch)s)
  AND (NOT %(open)s OR r.valid_to_seq IS NULL)
ORDER BY r.valid_from_seq, r.said_at, r.ruling_id
LIMIT %(limit)s

-- name: not_journaled
-- What was said or taken back and is in no entry of the journal yet, with the turn that did it.
SELECT n.ended, t.seq, t.at, r.ruling_id, c.name AS collection, r.kind, o.bucket, o.key,
       o.version_id,
       p.bucket AS other_bucket, p.key AS other_key, p.version_id AS other_version_id,
       r.who, r.why, r.batch, r.said_at, r.valid_from_seq, r.valid_to_seq
FROM ruling r
CROSS JOIN LATERAL (VALUES (false, r.valid_from_seq, r.said_in),
                           (true, r.valid_to_seq, r.ended_in)) AS n (ended, seq, entry)
JOIN turn t ON t.collection_id = r.collection_id AND t.seq = n.seq
JOIN collection c ON c.collection_id = r.collection_id
JOIN object o ON o.object_id = r.object_id
LEFT JOIN object p ON p.object_id = r.other_object_id
WHERE n.entry IS NULL
  AND (r.said_in IS NULL OR (r.valid_to_seq IS NOT NULL AND r.ended_in IS NULL))
ORDER BY c.name, t.seq, n.ended, r.said_at, r.ruling_id

-- name: journaled_as
-- The entry that tells of these rulings.
UPDATE ruling SET said_in = CASE WHEN %(ended)s THEN said_in ELSE coalesce(said_in, %(key)s) END,
                  ended_in = CASE WHEN %(ended)s THEN coalesce(ended_in, %(key)s) ELSE ended_in END
WHERE ruling_id = ANY (%(ruling_ids)s::uuid[])

-- name: entries_about
-- Entries of the journal that tell of rulings about these objects.
SELECT DISTINCT v.entry
FROM ruling r CROSS JOIN LATERAL (VALUES (r.said_in), (r.ended_in)) AS v (entry)
WHERE v.entry IS NOT NULL
  AND (r.object_id = ANY (%(object_ids)s::bigint[])
       OR r.other_object_id = ANY (%(object_ids)s::bigint[]))
ORDER BY v.entry

-- name: versions_of
-- What object ids mean, for those who look for them outside of the ledger.
SELECT bucket, key, version_id FROM object WHERE object_id = ANY (%(object_ids)s::bigint[])

-- name: open_rulings
-- Those of these ids that are in force, with their objects, and whether the first one was a
-- duplicate by the rule when it was said, in the generation in use.
SELECT r.ruling_id, r.kind, r.object_id, r.other_object_id AS other,
       EXISTS (SELECT FROM decision d
               WHERE d.collection_id = r.collection_id AND d.generation = c.generation
                 AND d.object_id = r.object_id AND d.outcome = 'duplicate' AND d.reason <> 'ruled'
                 AND holds_at(d.valid_from_seq, d.valid_to_seq, r.valid_from_seq - 1))
FROM ruling r JOIN collection c USING (collection_id)
WHERE r.collection_id = %(collection_id)s AND r.ruling_id = ANY (%(ruling_ids)b::uuid[])
  AND r.valid_to_seq IS NULL

-- name: know_object
-- A ruling restored from the journal may be about a version that a restored ledger does not know
-- yet.
INSERT INTO object (bucket, key, version_id) VALUES (%(bucket)s, %(key)s, %(version_id)s)
ON CONFLICT (bucket, key, version_id) DO NOTHING

-- name: object_id_of
-- After know_object.
SELECT object_id FROM object
WHERE bucket = %(bucket)s AND key = %(key)s AND version_id = %(version_id)s

-- name: groups
-- For a bulk ruling: every kept image with its duplicates, and the values that a bulk rule
-- compares. One row per member of a group of at least two, the kept one included.
SELECT coalesce(d.representative_object_id, d.object_id) AS of, d.object_id, d.outcome,
       o.quality, o.size_bytes, o.captured_at, coalesce(d.detail -> 'flags', '[]') AS flags
FROM decision d JOIN object o USING (object_id)
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.valid_to_seq IS NULL AND d.outcome IN ('kept', 'duplicate')
  AND starts_with(o.key, %(prefix)s)
  AND EXISTS (SELECT FROM decision c
              WHERE c.representative_object_id = coalesce(d.representative_object_id, d.object_id)
                AND c.collection_id = d.collection_id AND c.generation = d.generation
                AND c.outcome = 'duplicate' AND c.valid_to_seq IS NULL)
ORDER BY of, d.object_id
