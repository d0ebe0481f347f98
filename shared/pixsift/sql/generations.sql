-- Deciding a collection again while another generation is in use, and switching to the result.

-- name: position
-- Read before the rows it is a watermark for.
SELECT c.seq, c.generation, g.epsilon, g.second_look, c.space_id, m.dimension, g.keep_best
FROM collection c JOIN generation g USING (collection_id, generation)
JOIN model m ON m.space_id = c.space_id
WHERE c.collection_id = %(collection_id)s

-- name: building
-- A generation that a process is building, or that a crash left behind.
SELECT g.generation, g.created_at, coalesce(g.space_id, c.space_id) AS space_id
FROM generation g JOIN collection c USING (collection_id)
WHERE g.collection_id = %(collection_id)s AND g.state = 'building'

-- name: begin_generation
-- The next number is taken under the primary key: of two builders one gets no row. Without a space
-- it is of the collection's, with the collection's calibration.
INSERT INTO generation (collection_id, generation, epsilon, second_look, keep_best, state,
                        space_id, calibration)
SELECT c.collection_id, (SELECT max(generation) + 1 FROM generation g
                         WHERE g.collection_id = c.collection_id),
       %(epsilon)s, %(second_look)s, %(keep_best)s, 'building',
       coalesce(%(space_id)s::text, c.space_id),
       CASE WHEN %(space_id)s::text IS NULL THEN c.calibration ELSE %(calibration)s::jsonb END
FROM collection c WHERE c.collection_id = %(collection_id)s
ON CONFLICT DO NOTHING
RETURNING generation

-- name: discard_generation
-- Its number is not used again.
UPDATE generation SET state = 'discarded'
WHERE collection_id = %(collection_id)s AND generation = %(generation)s AND state = 'building'

-- name: previous_generation
-- The generation before the current one, and the seq at which it was replaced.
SELECT g.generation, g.epsilon, g.second_look, g.keep_best, c.switched_at_seq,
       coalesce(g.space_id, l.space_id) AS space_id, m.dimension,
       CASE WHEN g.space_id IS NULL THEN l.calibration ELSE g.calibration END AS calibration
FROM generation c JOIN generation g USING (collection_id)
JOIN collection l USING (collection_id)
JOIN model m ON m.space_id = coalesce(g.space_id, l.space_id)
WHERE c.collection_id = %(collection_id)s AND c.state = 'current' AND g.state = 'retired'
ORDER BY g.switched_at_seq DESC NULLS LAST, g.generation DESC LIMIT 1

-- name: states_at
-- Every object's outcome in a generation at a point, in the order of arrival: the first row that
-- judged the object (one that failed at first arrives when it is judged). Within a batch the first
-- row of any generation counts, as in arrived of rejudge.sql: a later row may have been written
-- while a ruling had changed the order. A remembered image (expired, still filtering) is gone, but
-- still represents.
SELECT d.object_id, d.outcome, d.reason, d.detail, d.representative_object_id AS representative,
       d.distance, coalesce(d.pixel_sha256, r.pixel_sha256) AS pixel_sha256, first.seq AS seq,
       r.object_id IS NOT NULL AS represents
FROM decision d
JOIN (SELECT object_id,
             coalesce(min(valid_from_seq) FILTER (WHERE outcome IN ('kept', 'duplicate')
                                                     OR reason = 'ruled'),
                      min(valid_from_seq)) AS seq
      FROM decision
      WHERE collection_id = %(collection_id)s AND generation = %(generation)s
        AND valid_from_seq <= %(at_seq)s
      GROUP BY object_id) AS first USING (object_id)
JOIN (SELECT object_id, valid_from_seq AS seq, min(decision_id) AS id
      FROM decision
      WHERE collection_id = %(collection_id)s
      GROUP BY object_id, valid_from_seq) AS tie USING (object_id, seq)
LEFT JOIN representative r ON r.collection_id = d.collection_id AND r.generation = d.generation
     AND r.object_id = d.object_id AND holds_at(r.valid_from_seq, r.valid_to_seq, %(at_seq)s)
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND holds_at(d.valid_from_seq, d.valid_to_seq, %(at_seq)s)
ORDER BY first.seq, tie.id

-- name: changes_between
-- What became of the objects that were decided, or whose decision was taken back (no outcome),
-- after one point and up to another, oldest first; those of one batch as they arrived.
SELECT object_id, outcome, reason, detail, representative, distance, pixel_sha256, seq, represents
FROM (
    SELECT d.object_id, d.outcome, d.reason, d.detail,
           d.representative_object_id AS representative, d.distance,
           coalesce(d.pixel_sha256, r.pixel_sha256) AS pixel_sha256, d.valid_from_seq AS seq,
           r.object_id IS NOT NULL AS represents, d.decision_id
    FROM decision d
    LEFT JOIN representative r ON r.collection_id = d.collection_id
         AND r.generation = d.generation AND r.object_id = d.object_id
         AND holds_at(r.valid_from_seq, r.valid_to_seq, %(to_seq)s)
    WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
      AND d.valid_from_seq > %(from_seq)s
      AND holds_at(d.valid_from_seq, d.valid_to_seq, %(to_seq)s)
    UNION ALL
    SELECT d.object_id, NULL, '', '{}', NULL, NULL, NULL, max(d.valid_to_seq), false,
           max(d.decision_id)
    FROM decision d
    WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
      AND d.valid_to_seq > %(from_seq)s AND d.valid_to_seq <= %(to_seq)s
      AND NOT EXISTS (SELECT FROM decision o
                      WHERE o.collection_id = d.collection_id AND o.generation = d.generation
                        AND o.object_id = d.object_id
                        AND holds_at(o.valid_from_seq, o.valid_to_seq, %(to_seq)s))
    GROUP BY d.object_id
) AS changes
ORDER BY seq, decision_id

-- name: images
-- What a decision needs to know of each object, in the order in which children of a removed image
-- are decided again. Erased ones have no vector and are left out.
SELECT o.object_id, o.content_sha256, v.pixel_sha256, e.embedding, e.look || e.change AS look
FROM unnest(%(object_ids)s::bigint[], %(pixels)s::bytea[], %(seqs)s::bigint[])
         AS v (object_id, pixel_sha256, seq)
JOIN object o USING (object_id)
JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = v.pixel_sha256
WHERE o.content_sha256 IS NOT NULL
ORDER BY redecide_order(o.quality, v.seq, o.object_id)

-- name: tell_the_planner
-- After inserting a whole generation: without new statistics the planner would assume it is empty.
ANALYZE decision, representative

-- name: uris
-- For examples that a person can open.
SELECT object_id, bucket, key, version_id FROM object WHERE object_id = ANY(%(object_ids)s)
