-- Objects in an embedding space that has not decided them yet, and what is still missing.

-- name: in_space
-- The rows of these objects in the space.
SELECT object_id, pixel_sha256, outcome, reason, detail FROM object_in_space
WHERE space_id = %(space_id)s AND object_id = ANY (%(object_ids)s)

-- name: lacking
-- A page of the judged objects of the generation in use that the space does not know yet. One that
-- a ruling rejected is judged again when the ruling is taken back.
SELECT o.object_id, o.bucket, o.key, o.version_id, o.content_sha256, o.size_bytes
FROM decision d JOIN object o USING (object_id)
WHERE d.collection_id = %(collection_id)s AND d.valid_to_seq IS NULL
  AND d.generation = (SELECT generation FROM collection WHERE collection_id = %(collection_id)s)
  AND (d.outcome IN ('kept', 'duplicate') OR d.reason = 'ruled')
  AND d.object_id > %(after)s AND o.erased_at IS NULL
  AND NOT EXISTS (SELECT FROM object_in_space s
                  WHERE s.space_id = %(space_id)s AND s.object_id = d.object_id)
ORDER BY d.object_id LIMIT %(limit)s

-- name: lacks_any
-- Under the lock: whether something was judged since that seq that the space does not know.
SELECT EXISTS (
    SELECT FROM decision d JOIN object o USING (object_id)
    WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
      AND d.valid_from_seq > %(seq)s AND d.valid_to_seq IS NULL
      AND (d.outcome IN ('kept', 'duplicate') OR d.reason = 'ruled') AND o.erased_at IS NULL
      AND NOT EXISTS (SELECT FROM object_in_space s
                      WHERE s.space_id = %(space_id)s AND s.object_id = d.object_id))

-- name: work
-- Objects to fetch: one of all with the same bytes, unless the space has it already. And the
-- objects remembered after expiry, whose bytes are gone.
WITH judged AS (
    SELECT d.object_id, d.outcome, o.content_sha256, o.size_bytes
    FROM decision d
    JOIN collection c USING (collection_id, generation)
    JOIN object o USING (object_id)
    WHERE d.collection_id = %(collection_id)s AND d.valid_to_seq IS NULL AND o.erased_at IS NULL
      AND (d.outcome IN ('kept', 'duplicate') OR d.reason = 'ruled'
           OR d.outcome = 'gone' AND EXISTS (
               SELECT FROM representative r
               WHERE r.collection_id = d.collection_id AND r.generation = d.generation
                 AND r.object_id = d.object_id AND r.valid_to_seq IS NULL))
      AND NOT EXISTS (SELECT FROM object_in_space s
                      WHERE s.space_id = %(space_id)s AND s.object_id = d.object_id)
      AND NOT EXISTS (SELECT FROM decision e JOIN generation g USING (collection_id, generation)
                      WHERE e.object_id = d.object_id AND g.space_id = %(space_id)s
                        AND e.pixel_sha256 IS NOT NULL)
)
SELECT count(*) FILTER (WHERE outcome <> 'gone') AS objects,
       count(DISTINCT content_sha256) FILTER (WHERE outcome <> 'gone') AS fetches,
       (SELECT coalesce(sum(size_bytes), 0) FROM (
            SELECT DISTINCT ON (content_sha256) size_bytes FROM judged WHERE outcome <> 'gone'
        ) AS once)::bigint AS bytes,
       count(*) FILTER (WHERE outcome = 'gone') AS remembered
FROM judged

-- name: take_from_decisions
-- Objects that a generation of the space, in whatever collection, has judged.
INSERT INTO object_in_space (space_id, object_id, pixel_sha256)
SELECT DISTINCT ON (d.object_id) %(space_id)s, d.object_id, d.pixel_sha256
FROM decision d
JOIN generation g USING (collection_id, generation)
JOIN collection c USING (collection_id)
JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = d.pixel_sha256
WHERE d.object_id = ANY (%(object_ids)s) AND coalesce(g.space_id, c.space_id) = %(space_id)s
ORDER BY d.object_id, d.decision_id DESC
ON CONFLICT DO NOTHING

-- name: take_from_same_bytes
-- The same bytes have the same pixels, or the same reason for having none.
INSERT INTO object_in_space (space_id, object_id, pixel_sha256, outcome, reason, detail)
SELECT DISTINCT ON (o.object_id) s.space_id, o.object_id, s.pixel_sha256, s.outcome, s.reason,
       s.detail
FROM object o
JOIN object twin ON twin.content_sha256 = o.content_sha256
JOIN object_in_space s ON s.object_id = twin.object_id AND s.space_id = %(space_id)s
WHERE o.object_id = ANY (%(object_ids)s) AND o.erased_at IS NULL
  AND coalesce(s.outcome, 'rejected') = 'rejected'
ORDER BY o.object_id, s.object_id
ON CONFLICT DO NOTHING

-- name: put_in_space
-- Known rows stay, except failures: those were tried again.
INSERT INTO object_in_space (space_id, object_id, pixel_sha256, outcome, reason, detail)
SELECT %(space_id)s, v.object_id, v.pixel_sha256, v.outcome, v.reason, coalesce(v.detail, '{}')
FROM unnest(%(object_ids)s::bigint[], %(pixels)s::bytea[], %(outcomes)s::text[],
            %(reasons)s::text[], %(details)s::jsonb[])
         AS v (object_id, pixel_sha256, outcome, reason, detail)
ORDER BY v.object_id
ON CONFLICT (space_id, object_id) DO UPDATE
SET pixel_sha256 = excluded.pixel_sha256, outcome = excluded.outcome, reason = excluded.reason,
    detail = excluded.detail
WHERE object_in_space.outcome = 'failed'

-- name: is_being_built
-- Whether a generation of the space is being built for the collection.
SELECT EXISTS (SELECT FROM generation WHERE collection_id = %(collection_id)s
               AND state = 'building' AND space_id = %(space_id)s)

-- name: moving
-- Collections of other spaces that concern this one: those being built in it, and those that were
-- in it and have left.
SELECT c.collection_id, bool_or(g.state = 'building') AS is_being_built
FROM collection c JOIN generation g USING (collection_id)
WHERE g.space_id = %(space_id)s AND c.space_id <> %(space_id)s
  AND g.state IN ('building', 'retired')
GROUP BY c.collection_id

-- name: note_arrivals
-- Acknowledged without a decision: the switch waits for them.
INSERT INTO shadow_arrival (collection_id, space_id, object_id)
SELECT %(collection_id)s, %(space_id)s, unnest(%(object_ids)s::bigint[])
ON CONFLICT DO NOTHING

-- name: drop_decided_arrivals
-- The generation in use has decided them.
DELETE FROM shadow_arrival s USING collection c
WHERE s.collection_id = %(collection_id)s AND s.space_id = %(space_id)s
  AND c.collection_id = s.collection_id
  AND EXISTS (SELECT FROM decision d
              WHERE d.collection_id = c.collection_id AND d.generation = c.generation
                AND d.object_id = s.object_id)

-- name: count_arrivals
-- Those that it has not.
SELECT count(*) FROM shadow_arrival
WHERE collection_id = %(collection_id)s AND space_id = %(space_id)s

-- name: try_alone
-- One process at a time builds a space of a collection; the lock ends with its session, so that a
-- dead process does not block others.
SELECT pg_try_advisory_lock(1886943087, %(collection_id)s)

-- name: no_longer_alone
-- The session goes back to a pool and lives on.
SELECT pg_advisory_unlock(1886943087, %(collection_id)s)
