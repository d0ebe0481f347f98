-- All statements that lock a collection or write its decision history are in this file.

-- name: lock_collection
-- Alone in its statement: the statements after it take fresh snapshots and so see every earlier
-- holder's work. NO KEY, since inserts of child rows take a key share on this row. Without a
-- collection_id: all of them, in the order of their ids. proved: how many of the points that the
-- plan rests on are in this history. A turn's row never changes, so the statement's own snapshot,
-- taken before the lock, shows them as well. A turn of a release that wrote none counts as zeros.
SELECT seq, generation, name, space_id, current_setting('transaction_isolation') AS isolation,
       (SELECT count(*) FROM unnest(%(seqs)s::bigint[], %(tokens)s::uuid[]) AS p (seq, token)
        LEFT JOIN turn t ON t.collection_id = %(collection_id)s AND t.seq = p.seq
        WHERE p.seq <= collection.seq
          AND p.token = coalesce(t.token, '00000000-0000-0000-0000-000000000000')
       ) AS proved
FROM collection
WHERE %(collection_id)s::integer IS NULL OR collection_id = %(collection_id)s
ORDER BY collection_id
FOR NO KEY UPDATE

-- name: share_collection
-- For facts that depend on which generation is in use or being built, but decide nothing: they wait
-- for the holder of the lock and keep the next one waiting, and not each other. Alone in its
-- statement, as above.
SELECT name, space_id FROM collection WHERE collection_id = %(collection_id)s FOR SHARE

-- name: close_decisions
-- Rows are only ever added and closed. A row of a generation that is being built may be closed at
-- the very seq that it began at, or before: it is then never valid.
UPDATE decision SET valid_to_seq = greatest(valid_from_seq, %(seq)s)
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND object_id = ANY (%(object_ids)b::bigint[]) AND valid_to_seq IS NULL

-- name: close_representatives
-- One that represents again later gets a new row, so that older watermarks cannot hide it.
UPDATE representative SET valid_to_seq = greatest(valid_from_seq, %(seq)s)
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND object_id = ANY (%(object_ids)b::bigint[]) AND valid_to_seq IS NULL

-- name: insert_decisions
-- In a turn every row begins at its seq; in a generation that is being built each has its own.
INSERT INTO decision (collection_id, generation, object_id, outcome, reason, detail,
                      representative_object_id, distance, pixel_sha256, valid_from_seq)
SELECT %(collection_id)s, %(generation)s, v.object_id, v.outcome, v.reason,
       coalesce(v.detail, '{}'), v.representative, v.distance, v.pixel_sha256, v.seq
FROM unnest(%(object_ids)b::bigint[], %(outcomes)b::text[], %(reasons)b::text[],
            %(details)b::jsonb[], %(representatives)b::bigint[], %(distances)b::float8[],
            %(pixels)b::bytea[], %(seqs)b::bigint[])
         AS v (object_id, outcome, reason, detail, representative, distance, pixel_sha256, seq)

-- name: insert_representatives
-- Joined to the embeddings: a vector that was erased a moment ago yields no row, and a turn starts
-- again.
INSERT INTO representative (collection_id, generation, object_id, space_id, content_sha256,
                            pixel_sha256, valid_from_seq)
SELECT %(collection_id)s, %(generation)s, v.object_id, e.space_id, v.content_sha256,
       e.pixel_sha256, v.seq
FROM unnest(%(object_ids)b::bigint[], %(contents)b::bytea[], %(pixels)b::bytea[],
            %(seqs)b::bigint[])
         AS v (object_id, content_sha256, pixel_sha256, seq)
JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = v.pixel_sha256

-- name: close_attributes
-- Changed attributes are a new row; equal ones stay.
UPDATE attribute a SET valid_to_seq = %(seq)s
FROM unnest(%(object_ids)b::bigint[], %(sources)b::text[], %(attributes)b::jsonb[])
         AS v (object_id, source, attributes)
WHERE a.collection_id = %(collection_id)s AND a.object_id = v.object_id AND a.source = v.source
  AND a.valid_to_seq IS NULL AND a.attributes <> v.attributes

-- name: insert_attributes
-- After close_attributes: what is still open is equal and stays. Under the lock: an object that was
-- erased since its attributes were read gets none.
INSERT INTO attribute (collection_id, object_id, source, attributes, valid_from_seq)
SELECT %(collection_id)s, v.object_id, v.source, v.attributes, %(seq)s
FROM unnest(%(object_ids)b::bigint[], %(sources)b::text[], %(attributes)b::jsonb[])
         AS v (object_id, source, attributes)
WHERE NOT EXISTS (SELECT FROM object o
                  WHERE o.object_id = v.object_id AND o.erased_at IS NOT NULL)
ON CONFLICT (collection_id, object_id, source) WHERE valid_to_seq IS NULL DO NOTHING

-- name: retire_current
-- The old generation stays readable: snapshots taken at a seq before the switch belong to it. The
-- previous release left the space and calibration of a generation empty; they are filled in now.
UPDATE generation g
SET state = CASE WHEN g.state = 'current' THEN 'retired' ELSE g.state END,
    space_id = coalesce(g.space_id, c.space_id),
    calibration = CASE WHEN g.space_id IS NULL THEN c.calibration ELSE g.calibration END
FROM collection c
WHERE g.collection_id = %(collection_id)s AND c.collection_id = g.collection_id
  AND (g.state = 'current' OR g.space_id IS NULL)

-- name: make_current
-- In the turn that brought the generation up to this very seq.
UPDATE generation SET state = 'current', switched_at_seq = %(seq)s
WHERE collection_id = %(collection_id)s AND generation = %(generation)s AND state = 'building'

-- name: switch_collection
-- A consumer in mid-batch reads another generation under the lock and starts its phase 1 again.
-- A generation without a space of its own (from the release before) keeps the collection's.
UPDATE collection c
SET generation = g.generation, epsilon = g.epsilon, second_look = g.second_look,
    space_id = coalesce(g.space_id, c.space_id),
    calibration = CASE WHEN g.space_id IS NULL THEN c.calibration ELSE g.calibration END
FROM generation g
WHERE c.collection_id = %(collection_id)s AND g.collection_id = c.collection_id
  AND g.generation = %(generation)s

-- name: insert_rulings
-- The unique indexes are a last protection: rulings are checked before, under this lock.
INSERT INTO ruling (ruling_id, collection_id, kind, object_id, other_object_id, who, why, batch,
                    said_at, valid_from_seq)
SELECT v.ruling_id, %(collection_id)s, v.kind, v.object_id, v.other, v.who, v.why, v.batch,
       coalesce(v.said_at, clock_timestamp()), %(seq)s
FROM unnest(%(ruling_ids)b::uuid[], %(kinds)b::text[], %(object_ids)b::bigint[],
            %(others)b::bigint[], %(who)b::text[], %(why)b::text[], %(batches)b::uuid[],
            %(said_ats)b::timestamptz[])
         AS v (ruling_id, kind, object_id, other, who, why, batch, said_at)

-- name: close_rulings
-- A ruling that is taken back stays on record.
UPDATE ruling SET valid_to_seq = %(seq)s
WHERE collection_id = %(collection_id)s AND ruling_id = ANY (%(ruling_ids)b::uuid[])
  AND valid_to_seq IS NULL

-- name: end_turn
-- The last statement under the lock. The condition is a second protection: without the lock it
-- would change no row. One statement also inserts the turn's row, to shorten the time under the
-- lock.
WITH bumped AS (
    UPDATE collection SET seq = %(seq)s
    WHERE collection_id = %(collection_id)s AND seq = %(seq)s - 1
    RETURNING collection_id, seq
)
INSERT INTO turn (collection_id, seq, actor, reason)
SELECT collection_id, seq, %(actor)s, %(reason)s FROM bumped

-- name: discard_representatives
-- The rows of a generation that was never in use were never read, so they are deleted.
DELETE FROM representative WHERE collection_id = %(collection_id)s AND generation = %(generation)s

-- name: discard_decisions
-- As above.
DELETE FROM decision WHERE collection_id = %(collection_id)s AND generation = %(generation)s

-- name: blank_decisions
-- An erasure: the history of outcomes stays, without anything measured on the image.
UPDATE decision SET pixel_sha256 = NULL, detail = '{}'
WHERE object_id = ANY (%(object_ids)b::bigint[]) AND (pixel_sha256 IS NOT NULL OR detail <> '{}')

-- name: drop_representatives
-- An erasure: representatives still open in generations that are not in use. Only an undo reads
-- these, and it follows the erasure.
DELETE FROM representative
WHERE object_id = ANY (%(object_ids)b::bigint[]) AND valid_to_seq IS NULL

-- name: blank_representatives
-- An erasure: without its hashes, but still there: a consumer's mirror drops the vector when it
-- sees it closed.
UPDATE representative SET content_sha256 = '', pixel_sha256 = ''
WHERE object_id = ANY (%(object_ids)b::bigint[])

-- name: blank_rulings
-- An erasure: why a ruling was made may describe the image.
UPDATE ruling SET why = '' WHERE why <> ''
  AND (object_id = ANY (%(object_ids)b::bigint[])
       OR other_object_id = ANY (%(object_ids)b::bigint[]))

-- name: end_watches_of
-- An erasure: a watch that was made of the image ends, and its vectors go.
WITH erased AS (
    SELECT array_agg(pixel_sha256) AS pixels FROM (
        SELECT pixel_sha256 FROM decision
        WHERE object_id = ANY (%(object_ids)b::bigint[]) AND pixel_sha256 IS NOT NULL
        UNION
        SELECT pixel_sha256 FROM object
        WHERE object_id = ANY (%(object_ids)b::bigint[]) AND pixel_sha256 IS NOT NULL
    ) p
), ended AS (
    UPDATE watch w SET ended_at = coalesce(w.ended_at, now()),
           ended_why = coalesce(w.ended_why, 'erased'), examples = '[]', example_pixels = '{}'
    FROM erased WHERE w.example_pixels && erased.pixels RETURNING w.watch_id, w.collection_id
), dropped AS (
    DELETE FROM watch_vector v USING ended e WHERE v.watch_id = e.watch_id
)
UPDATE watch_state s SET token = gen_random_uuid()
WHERE s.collection_id IN (SELECT collection_id FROM ended)

-- name: drop_hits
-- An erasure: that an image is like something says what it shows.
DELETE FROM watch_hit WHERE object_id = ANY (%(object_ids)b::bigint[])

-- name: erased_in_generation
-- Rows that a build copied from before an erasure; under the lock of the switch.
SELECT DISTINCT d.object_id FROM decision d JOIN object o USING (object_id)
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND o.erased_at IS NOT NULL AND (d.pixel_sha256 IS NOT NULL OR d.detail <> '{}')

-- name: drop_attributes
-- An erasure: robot, camera, place and time also describe the image.
DELETE FROM attribute WHERE object_id = ANY (%(object_ids)b::bigint[])

-- name: drop_counters
-- Before a recount, under the collection's lock.
DELETE FROM outcome_count
WHERE collection_id = %(collection_id)s AND generation = %(generation)s

-- name: recount
-- Otherwise counters change by delta only, by the triggers on decision.
INSERT INTO outcome_count (collection_id, generation, outcome, reason, flag, objects)
SELECT d.collection_id, d.generation, d.outcome, d.reason, f.flag, count(*)
FROM decision d CROSS JOIN LATERAL counted_under(d.detail) AS f (flag)
WHERE d.collection_id = %(collection_id)s AND d.generation = %(generation)s
  AND d.valid_to_seq IS NULL
GROUP BY 1, 2, 3, 4, 5
