-- What the event stream follows.

-- name: heads
-- The present point of every collection: polled a few times a second, by primary keys only.
SELECT c.name, c.seq, coalesce(t.token, '00000000-0000-0000-0000-000000000000') AS token
FROM collection c LEFT JOIN turn t USING (collection_id, seq)

-- name: token_of
-- Whether a seq that a reader saw belongs to this history; no row for a seq in the future.
SELECT coalesce(t.token, '00000000-0000-0000-0000-000000000000')
FROM collection c LEFT JOIN turn t ON t.collection_id = c.collection_id AND t.seq = %(seq)s
WHERE c.name = %(name)s AND c.seq >= %(seq)s

-- name: decided_between
-- Decisions by outcome since a reader last looked, in the current generation.
SELECT d.outcome, count(*) AS decisions
FROM decision d JOIN collection c USING (collection_id, generation)
WHERE c.name = %(name)s AND d.valid_from_seq > %(from_seq)s AND d.valid_from_seq <= %(to_seq)s
GROUP BY d.outcome
