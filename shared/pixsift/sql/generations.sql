-- Deciding a collection again beside the generation in use, and switching to the result.

-- name: position
-- Read before the rows it is a watermark for.
SELECT c.seq, c.generation, g.epsilon, g.second_look, c.space_id, m.dimension
FROM collection c JOIN generation g USING (collection_id, generation) JOIN model m USING (space_id)
WHERE c.collection_id = %(collection_id)s

-- name: lock_for_switch
-- The lock of every decision; alone in its statement, so that the next one sees all earlier holders.
SELECT seq, generation FROM collection WHERE collection_id = %(collection_id)s FOR NO KEY UPDATE

-- name: building
-- A generation that somebody is building, or that a crash left behind.
SELECT generation, created_at FROM generation
WHERE collection_id = %(collection_id)s AND state = 'building'

-- name: begin_generation
-- The next number is taken under the primary key: of two builders one gets no row.
INSERT INTO generation (collection_id, generation, epsilon, second_look, state)
SELECT %(collection_id)s, max(generation) + 1, %(epsilon)s, %(second_look)s, 'building'
FROM generation WHERE collection_id = %(collection_id)s
ON CONFLICT DO NOTHING
RETURNING generation

-- name: discard_representatives
-- Nobody has ever read the rows of a generation that was not switched to: they may go.
DELETE FROM representative WHERE collection_id = %(collection_id)s AND generation = %(generation)s

-- name: discard_decisions
-- As above.
DELETE FROM decision WHERE collection_id = %(collection_id)s AND generation = %(generation)s

-- name: discard_generation
-- The number stays used.
UPDATE generation SET state = 'discarded'
WHERE collection_id = %(collection_id)s AND generation = %(generation)s AND state = 'building'

-- name: previous_generation
-- What was in use before the current one, and the point at which it was switched away from.
SELECT g.generation, g.epsilon, g.second_look, c.switched_at_seq
FROM generation c JOIN generation g USING (collection_id)
WHERE c.collection_id = %(collection_id)s AND c.state = 'current' AND g.state = 'retired'
ORDER BY g.switched_at_seq DESC NULLS LAST, g.generation DESC LIMIT 1

-- name: states_at
-- Every object's outcome in a generation at a point, in the order of arrival: the first row that
-- judged the object (one that failed at first arrives when it is judged). A remembered one (expired,
-- its memory keeps filtering) is gone, but still represents.
SELECT d.object_id, d.outcome, d.reason, d.detail, d.representative_object_id AS representative,
       d.distance, coalesce(d.pixel_sha256, r.pixel_sha256) AS pixel_sha256, first.seq AS seq,
       r.object_id IS NOT NULL AS represents
FROM decision d
JOIN (SELECT object_id,
             coalesce(min(valid_from_seq) FILTER (WHERE outcome IN ('kept', 'duplicate')),
                      min(valid_from_seq)) AS seq,
             coalesce(min(decision_id) FILTER (WHERE outcome IN ('kept', 'duplicate')),
                      min(decision_id)) AS id
      FROM decision
      WHERE collection_id = %(collection_id)s AND generation = %(generation)s
        AND valid_from_seq <= %(at_seq)s
      GROUP BY object_id) AS first USING (object_id)
LEFT JOIN representative r ON r.collection_id = d.collection_id AND r.generation = d.generation
     AND r.object_id = d.object_id AND r.valid_from_seq <= %(at_seq)s
     AND (r.valid_to_seq IS NULL OR r.valid_to_seq > %(at_seq)s)
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.valid_from_seq <= %(at_seq)s AND (d.valid_to_seq IS NULL OR d.valid_to_seq > %(at_seq)s)
ORDER BY first.seq, first.id

-- name: changes_between
-- What became of the objects that were decided, or whose decision was taken back (no outcome),
-- after one point and up to another, oldest first.
SELECT d.object_id, d.outcome, d.reason, d.detail, d.representative_object_id AS representative,
       d.distance, coalesce(d.pixel_sha256, r.pixel_sha256) AS pixel_sha256,
       d.valid_from_seq AS seq, r.object_id IS NOT NULL AS represents
FROM decision d
LEFT JOIN representative r ON r.collection_id = d.collection_id AND r.generation = d.generation
     AND r.object_id = d.object_id AND r.valid_from_seq <= %(to_seq)s
     AND (r.valid_to_seq IS NULL OR r.valid_to_seq > %(to_seq)s)
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.valid_from_seq > %(from_seq)s AND d.valid_from_seq <= %(to_seq)s
  AND (d.valid_to_seq IS NULL OR d.valid_to_seq > %(to_seq)s)
UNION ALL
SELECT d.object_id, NULL, '', '{}', NULL, NULL, NULL, max(d.valid_to_seq), false
FROM decision d
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.valid_to_seq > %(from_seq)s AND d.valid_to_seq <= %(to_seq)s
  AND NOT EXISTS (SELECT FROM decision o
                  WHERE o.collection_id = d.collection_id AND o.generation = d.generation
                    AND o.object_id = d.object_id AND o.valid_from_seq <= %(to_seq)s
                    AND (o.valid_to_seq IS NULL OR o.valid_to_seq > %(to_seq)s))
GROUP BY d.object_id
ORDER BY seq, object_id

-- name: images
-- What a decision needs to know of each object, in the order in which orphans are decided again:
-- sharper first, then older. Erased ones have no vector and are left out.
SELECT o.object_id, o.content_sha256, v.pixel_sha256, e.embedding, e.look
FROM unnest(%(object_ids)s::bigint[], %(pixels)s::bytea[], %(seqs)s::bigint[])
         AS v (object_id, pixel_sha256, seq)
JOIN object o USING (object_id)
JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = v.pixel_sha256
WHERE o.content_sha256 IS NOT NULL
ORDER BY (o.quality ->> 'sharpness')::float8 DESC NULLS LAST, v.seq, o.object_id

-- name: write_decisions
-- Into a generation that nobody reads yet.
INSERT INTO decision (collection_id, generation, object_id, outcome, reason, detail,
                      representative_object_id, distance, pixel_sha256, valid_from_seq)
SELECT %(collection_id)s, %(generation)s, v.*
FROM unnest(%(object_ids)s::bigint[], %(outcomes)s::text[], %(reasons)s::text[],
            %(details)s::jsonb[], %(representatives)s::bigint[], %(distances)s::float8[],
            %(pixels)s::bytea[], %(seqs)s::bigint[]) AS v

-- name: write_representatives
-- The kept ones and the remembered ones.
INSERT INTO representative (collection_id, generation, space_id, object_id, content_sha256,
                            pixel_sha256, valid_from_seq)
SELECT %(collection_id)s, %(generation)s, %(space_id)s, v.*
FROM unnest(%(object_ids)s::bigint[], %(contents)s::bytea[], %(pixels)s::bytea[],
            %(seqs)s::bigint[]) AS v

-- name: tell_the_planner
-- A generation's worth of new rows: without fresh statistics every plan would take it for empty.
ANALYZE decision, representative

-- name: end_decision
-- Closed at the seq at which the generation in use saw the change.
UPDATE decision SET valid_to_seq = greatest(valid_from_seq, %(seq)s)
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND object_id = %(object_id)s AND valid_to_seq IS NULL

-- name: end_representative
-- As above.
UPDATE representative SET valid_to_seq = greatest(valid_from_seq, %(seq)s)
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND object_id = %(object_id)s AND valid_to_seq IS NULL

-- name: retire_current
-- The old generation stays readable: snapshots taken at a seq before the switch belong to it.
UPDATE generation SET state = 'retired'
WHERE collection_id = %(collection_id)s AND state = 'current'

-- name: make_current
-- Under the lock, in the transaction that brought the generation up to this very seq.
UPDATE generation SET state = 'current', switched_at_seq = %(seq)s
WHERE collection_id = %(collection_id)s AND generation = %(generation)s AND state = 'building'

-- name: switch_collection
-- A consumer in mid-batch reads another generation under the lock and starts its phase 1 again.
UPDATE collection c SET generation = g.generation, seq = %(seq)s,
       epsilon = g.epsilon, second_look = g.second_look
FROM generation g
WHERE c.collection_id = %(collection_id)s AND g.collection_id = c.collection_id
  AND g.generation = %(generation)s

-- name: uris
-- For examples that a person can open.
SELECT object_id, bucket, key, version_id FROM object WHERE object_id = ANY(%(object_ids)s)
