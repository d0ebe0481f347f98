-- For people: collections and their counts.

-- name: change_collection
-- Only what later arrivals are judged by; epsilon and the second look change by `redecide`.
UPDATE collection SET
    sources = coalesce(%(sources)s, sources),
    key_pattern = CASE WHEN %(set_key_pattern)s THEN %(key_pattern)s ELSE key_pattern END,
    quality_policy = coalesce(%(quality_policy)s, quality_policy),
    expiry_policy = coalesce(%(expiry_policy)s, expiry_policy)
WHERE collection_id = %(collection_id)s

-- name: outcome_counts
-- The outcomes that hold now, by reason; polled several times a second for progress. Read from
-- counters: one row each, independent of the number of decisions.
SELECT n.outcome, n.reason, n.objects
FROM outcome_count n JOIN collection c USING (collection_id, generation)
WHERE n.collection_id = %(collection_id)s AND n.flag = '' AND n.objects <> 0
ORDER BY n.outcome, n.objects DESC, n.reason

-- name: flag_counts
-- Objects with an outcome that holds now, by the flag of the quality policy; counters as above.
SELECT n.outcome, n.flag, sum(n.objects)::bigint AS objects
FROM outcome_count n JOIN collection c USING (collection_id, generation)
WHERE n.collection_id = %(collection_id)s AND n.flag <> ''
GROUP BY n.outcome, n.flag HAVING sum(n.objects) <> 0
ORDER BY n.outcome, sum(n.objects) DESC, n.flag

-- name: images
-- Images with the outcome that holds now, the newest decision first.
SELECT o.object_id, o.bucket, o.key, o.version_id, o.thumbnail_key, d.outcome, d.reason,
       d.distance, d.decided_at, r.bucket AS representative_bucket,
       r.key AS representative_key, r.version_id AS representative_version_id
FROM decision d JOIN collection c USING (collection_id, generation)
JOIN object o ON o.object_id = d.object_id
LEFT JOIN object r ON r.object_id = d.representative_object_id
WHERE d.collection_id = %(collection_id)s AND d.valid_to_seq IS NULL
  AND (%(outcome)s::text IS NULL OR d.outcome::text = %(outcome)s)
  AND (%(reason)s::text IS NULL OR d.reason = %(reason)s)
  AND starts_with(o.key, %(prefix)s)
ORDER BY d.valid_from_seq DESC, d.decision_id DESC LIMIT %(limit)s

-- name: thumbnail_keys
-- The keys of these objects' thumbnails.
SELECT object_id, thumbnail_key FROM object
WHERE object_id = ANY(%(object_ids)s) AND thumbnail_key IS NOT NULL

-- name: outcomes_of_keys
-- The outcomes of the objects of an upload, in every collection.
SELECT o.key, d.outcome, d.reason
FROM object o JOIN decision d ON d.object_id = o.object_id
JOIN collection c USING (collection_id, generation)
WHERE o.bucket = %(bucket)s AND o.key = ANY(%(keys)s) AND d.valid_to_seq IS NULL
  AND (%(since)s::timestamptz IS NULL OR o.first_seen_at >= %(since)s)

-- name: now
-- The server's clock, by which arrivals are dated.
SELECT clock_timestamp() AS now

-- name: current_outcomes
-- Every object of a collection with its open decision, in the order of arrival.
SELECT o.object_id, o.bucket, o.key, o.version_id, o.content_sha256, o.thumbnail_key, o.quality,
       d.outcome, d.reason, d.representative_object_id, d.distance
FROM decision d
JOIN collection c USING (collection_id, generation)
JOIN object o USING (object_id)
WHERE d.collection_id = %(collection_id)s AND d.valid_to_seq IS NULL
ORDER BY o.object_id

-- name: snapshot_objects
-- What a snapshot holds: the objects and where their copies are.
SELECT i.object_id, i.rank, i.split, i.destination_key, o.bucket, o.key, o.version_id,
       o.content_sha256
FROM snapshot_item i JOIN object o USING (object_id)
WHERE i.snapshot_id = %(snapshot_id)s
ORDER BY i.rank

-- name: recent_decisions
-- Decisions of the last minute, for a rate: found by its turns, an index range of the newest seqs.
SELECT count(*) AS decisions, max(d.decided_at) AS newest
FROM decision d
WHERE d.collection_id = %(collection_id)s
  AND d.generation = (SELECT generation FROM collection WHERE collection_id = %(collection_id)s)
  AND d.valid_from_seq >= (SELECT min(t.seq) FROM turn t
                           WHERE t.collection_id = %(collection_id)s
                             AND t.seq > (SELECT seq - 2000 FROM collection
                                          WHERE collection_id = %(collection_id)s)
                             AND t.at > now() - interval '1 minute')
  AND d.decided_at > now() - interval '1 minute'

-- name: newest_reasons
-- Of the newest decisions, newest first: an index range backwards, however many there are. The
-- generation is a value and not a join, or the planner would read and sort all of them.
SELECT reason FROM decision
WHERE collection_id = %(collection_id)s
  AND generation = (SELECT generation FROM collection WHERE collection_id = %(collection_id)s)
ORDER BY valid_from_seq DESC LIMIT %(most)s

-- name: generations_of
-- All of them: the history of rules.
SELECT generation, epsilon, second_look, keep_best, state, created_at, switched_at_seq
FROM generation WHERE collection_id = %(collection_id)s ORDER BY generation

-- name: space_of
-- Which model and recipe the collection's vectors come from.
SELECT m.space_id, m.name, m.revision, m.weights_sha256, m.recipe_id, m.pooling, m.dimension
FROM model m JOIN collection c USING (space_id) WHERE c.collection_id = %(collection_id)s

-- name: snapshot_counts
-- Snapshots by state, and the newest published one.
SELECT state, count(*) AS snapshots, max(published_at) AS newest
FROM snapshot WHERE collection_id = %(collection_id)s GROUP BY state ORDER BY state

-- name: anomaly_counts
-- Messages that were not object events, by reason.
SELECT reason, count(*) AS messages, max(received_at) AS newest
FROM anomaly GROUP BY reason ORDER BY count(*) DESC, reason
