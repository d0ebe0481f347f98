-- name: pin_request
-- The first delivery fixes collection, generation and at_seq; every later one finds them. One
-- statement reads generation and seq together, so that a switch cannot come between.
INSERT INTO snapshot_request (request_id, body, collection_id, generation, at_seq)
SELECT %(request_id)s, %(body)s, c.collection_id,
       generation_at(c.collection_id, %(at_seq)s),
       coalesce(%(at_seq)s::bigint, c.seq)
FROM collection c WHERE c.name = %(collection)s
ON CONFLICT (request_id) DO NOTHING

-- name: request
-- What is on record about a request, with its collection as it is now.
SELECT r.request_id, r.collection_id, r.generation, r.at_seq, r.snapshot_id, r.error, r.body,
       c.name AS collection, c.seq, c.created_at AS collection_created_at
FROM snapshot_request r LEFT JOIN collection c USING (collection_id)
WHERE r.request_id = %(request_id)s

-- name: refuse_request
-- A request that led to no snapshot; one that did keeps it.
INSERT INTO snapshot_request (request_id, body, error)
VALUES (%(request_id)s, %(body)s, %(error)s)
ON CONFLICT (request_id) DO UPDATE SET error = excluded.error
WHERE snapshot_request.snapshot_id IS NULL

-- name: record_anomaly
-- A body that holds no usable request id, kept as the raw bytes that came.
INSERT INTO anomaly (queue, message_id, body, reason)
VALUES (%(queue)s, %(message_id)s, %(body)s, %(reason)s)
ON CONFLICT DO NOTHING

-- name: same_snapshot
-- The same spec at the same point of the same collection is the same snapshot.
SELECT snapshot_id FROM snapshot
WHERE collection_id = %(collection_id)s AND at_seq = %(at_seq)s AND spec_hash = %(spec_hash)s

-- name: insert_snapshot
-- Of several curators that resolved the same request, the first one's list stands.
INSERT INTO snapshot (snapshot_id, collection_id, generation, request_id, name, request, spec_hash,
                      seed, at_seq, state, report)
VALUES (%(snapshot_id)s, %(collection_id)s, %(generation)s, %(request_id)s, %(name)s, %(request)s,
        %(spec_hash)s, %(seed)s, %(at_seq)s, 'resolved', %(report)s)
ON CONFLICT DO NOTHING
RETURNING snapshot_id

-- name: hold_collection
-- Last of all, alone in its statement: a turn before it does not see the list, one after it does.
SELECT FROM collection WHERE collection_id = %(collection_id)s FOR SHARE

-- name: note_seq
-- After hold_collection: from which seq on keep-best leaves what is listed in its place.
UPDATE snapshot SET resolved_seq = c.seq
FROM collection c
WHERE snapshot.snapshot_id = %(snapshot_id)s AND c.collection_id = %(collection_id)s

-- name: copy_items
-- A list may be long: COPY, inside the transaction that stores the snapshot.
COPY snapshot_item (snapshot_id, rank, object_id, split, destination_key, reason, covering_radius)
FROM STDIN

-- name: sources
-- Source facts of the chosen objects, to plan their destinations.
SELECT o.object_id, o.bucket, o.key, o.version_id
FROM object o WHERE o.object_id = ANY(%(object_ids)s)

-- name: link_request
-- A request leads to one snapshot and stays with it.
UPDATE snapshot_request SET snapshot_id = %(snapshot_id)s, error = NULL
WHERE request_id = %(request_id)s AND snapshot_id IS NULL

-- name: snapshot
-- One snapshot with its progress.
SELECT s.snapshot_id, s.collection_id, c.name AS collection, s.generation, s.request_id, s.name,
       s.request, s.spec_hash, s.seed, s.at_seq, s.state, s.error, s.report, s.location, s.fence,
       s.stalls, s.created_at, s.published_at, s.announced_at,
       coalesce(g.space_id, c.space_id) AS space_id,
       g.epsilon, g.second_look,
       CASE WHEN g.space_id IS NULL THEN c.calibration ELSE g.calibration END AS calibration,
       (SELECT count(*) FROM snapshot_item i WHERE i.snapshot_id = s.snapshot_id) AS images,
       (SELECT count(*) FROM snapshot_item i
        WHERE i.snapshot_id = s.snapshot_id AND i.copy_state = 'copied') AS copied
FROM snapshot s
JOIN collection c USING (collection_id)
LEFT JOIN generation g
  ON g.collection_id = s.collection_id AND g.generation = s.generation
WHERE s.snapshot_id = %(snapshot_id)s

-- name: list_snapshots
-- The newest first.
SELECT s.snapshot_id, c.name AS collection, s.name, s.at_seq, s.state, s.error, s.location,
       s.created_at, s.published_at,
       (SELECT count(*) FROM snapshot_item i WHERE i.snapshot_id = s.snapshot_id) AS images,
       (SELECT count(*) FROM snapshot_item i
        WHERE i.snapshot_id = s.snapshot_id AND i.copy_state = 'copied') AS copied
FROM snapshot s JOIN collection c USING (collection_id)
WHERE (%(collection)s::text IS NULL OR c.name = %(collection)s)
ORDER BY s.created_at DESC, s.snapshot_id LIMIT %(limit)s

-- name: refused_requests
-- Requests that ended without a snapshot, newest first.
SELECT r.request_id, r.error, r.received_at, r.body
FROM snapshot_request r
WHERE r.snapshot_id IS NULL AND r.error IS NOT NULL
ORDER BY r.received_at DESC LIMIT %(limit)s

-- name: find_snapshots
-- By id, by request id, or by name.
SELECT s.snapshot_id FROM snapshot s
WHERE s.snapshot_id = %(text)s OR s.name = %(text)s
  OR EXISTS (SELECT FROM snapshot_request r
             WHERE r.snapshot_id = s.snapshot_id AND r.request_id = %(text)s)
ORDER BY s.created_at DESC

-- name: request_ids
-- All requests for this snapshot.
SELECT request_id FROM snapshot_request WHERE snapshot_id = %(snapshot_id)s ORDER BY received_at

-- name: claim
-- One exporter at a time: the lease keeps others off, the fence voids the writes of one that lost
-- its lease without noticing (a stopped process that wakes up). Time is the database's. stalls: how
-- many exporters before this one ended without giving the lease back and without any progress.
UPDATE snapshot s
SET fence = fence + 1, state = 'copying',
    lease_until = now() + make_interval(secs => %(lease_seconds)s),
    stalls = CASE WHEN work.done > s.progress THEN 0 ELSE s.stalls + 1 END,
    progress = work.done
FROM (SELECT (SELECT count(*) FROM snapshot_item
              WHERE snapshot_id = %(snapshot_id)s AND copy_state = 'copied')
           + (SELECT count(*) FROM snapshot_file
              WHERE snapshot_id = %(snapshot_id)s)) AS work (done)
WHERE s.snapshot_id = %(snapshot_id)s AND s.state IN ('resolved', 'copying')
  AND (s.lease_until IS NULL OR s.lease_until < now())
RETURNING fence, stalls

-- name: renew
-- No row: the lease was lost to another exporter.
UPDATE snapshot SET lease_until = now() + make_interval(secs => %(lease_seconds)s)
WHERE snapshot_id = %(snapshot_id)s AND fence = %(fence)s AND state = 'copying'
RETURNING fence

-- name: unfinished
-- Stored lists whose exporter is gone: an idle curator takes them over.
SELECT snapshot_id FROM snapshot
WHERE state IN ('resolved', 'copying') AND (lease_until IS NULL OR lease_until < now())
ORDER BY created_at LIMIT 1

-- name: abandoned
-- Snapshots that failed some days ago: nothing refers to their copies any more.
SELECT snapshot_id FROM snapshot
WHERE state = 'failed' AND created_at < now() - make_interval(secs => %(older_than_days)s * 86400)
ORDER BY created_at

-- name: unannounced
-- Finished, but no event was sent.
SELECT snapshot_id FROM snapshot
WHERE state IN ('published', 'failed') AND announced_at IS NULL
ORDER BY created_at LIMIT 1

-- name: planned_items
-- What is still to be copied, or the whole plan.
SELECT i.rank, i.object_id, o.bucket, o.key, o.version_id, coalesce(o.etag, '') AS etag,
       coalesce(o.size_bytes, 0) AS size_bytes, o.content_sha256, i.split, i.destination_key
FROM snapshot_item i JOIN object o USING (object_id)
WHERE i.snapshot_id = %(snapshot_id)s AND (%(all)s OR i.copy_state = 'planned')
ORDER BY i.rank

-- name: mark_copied
-- FOR SHARE on the snapshot row delays a new claim until this commits: an old exporter cannot write
-- after the new one has begun.
WITH mine AS MATERIALIZED (
    SELECT snapshot_id FROM snapshot
    WHERE snapshot_id = %(snapshot_id)s AND fence = %(fence)s AND state = 'copying' FOR SHARE
)
UPDATE snapshot_item i SET copy_state = 'copied', checksum = done.checksum
FROM mine, unnest(%(ranks)s::integer[], %(checksums)s::text[]) AS done (rank, checksum)
WHERE i.snapshot_id = mine.snapshot_id AND i.rank = done.rank
  AND i.copy_state IN ('planned', 'copied')
RETURNING i.rank

-- name: record_file
-- Under the fence, like mark_copied.
WITH mine AS MATERIALIZED (
    SELECT snapshot_id FROM snapshot
    WHERE snapshot_id = %(snapshot_id)s AND fence = %(fence)s AND state = 'copying' FOR SHARE
)
INSERT INTO snapshot_file (snapshot_id, path, size_bytes, sha256)
SELECT snapshot_id, %(path)s, %(size_bytes)s, %(sha256)s FROM mine
ON CONFLICT (snapshot_id, path) DO UPDATE
SET size_bytes = excluded.size_bytes, sha256 = excluded.sha256
RETURNING path

-- name: files
-- What was written next to the images.
SELECT path, size_bytes, sha256 FROM snapshot_file
WHERE snapshot_id = %(snapshot_id)s ORDER BY path

-- name: publish
-- An item that was erased meanwhile keeps the snapshot from being published (see redact).
UPDATE snapshot s
SET state = 'published', location = %(location)s, published_at = now(), lease_until = NULL,
    error = NULL
WHERE s.snapshot_id = %(snapshot_id)s AND s.fence = %(fence)s AND s.state = 'copying'
RETURNING s.snapshot_id

-- name: fail
-- Only the exporter that holds the fence may give up.
UPDATE snapshot SET state = 'failed', error = %(error)s, lease_until = NULL
WHERE snapshot_id = %(snapshot_id)s AND fence = %(fence)s AND state = 'copying'
RETURNING snapshot_id

-- name: yield_lease
-- Given back on a stop, or kept for a back-off so that it is not retried at once. An exporter that
-- gives it back has not crashed: the claim that led here does not count as a stall.
UPDATE snapshot SET lease_until = now() + make_interval(secs => %(delay_seconds)s),
                    stalls = greatest(stalls - 1, 0)
WHERE snapshot_id = %(snapshot_id)s AND fence = %(fence)s AND state = 'copying'

-- name: mark_announced
-- After the event was accepted: it is published at least once.
UPDATE snapshot SET announced_at = now() WHERE snapshot_id = %(snapshot_id)s

-- name: manifest_rows
-- The chosen objects with what was known of them at the snapshot's own point in the history.
-- Attributes are gathered by one join: a subquery per image would have no index for the past.
-- An object has one pixel hash per recipe and its row only the first; the snapshot uses the one
-- that has a vector in the space of its generation.
WITH hashed AS (
    SELECT DISTINCT d.object_id, d.pixel_sha256
    FROM snapshot s
    JOIN collection c USING (collection_id)
    LEFT JOIN generation g
      ON g.collection_id = s.collection_id AND g.generation = s.generation
    JOIN snapshot_item i USING (snapshot_id)
    JOIN decision d USING (object_id)
    JOIN embedding e ON e.space_id = coalesce(g.space_id, c.space_id)
                    AND e.pixel_sha256 = d.pixel_sha256
    WHERE s.snapshot_id = %(snapshot_id)s
), known AS (
    SELECT i.object_id, jsonb_object_agg(a.source, a.attributes) AS attributes
    FROM snapshot s
    JOIN snapshot_item i USING (snapshot_id)
    JOIN attribute a ON a.collection_id = s.collection_id AND a.object_id = i.object_id
                    AND holds_at(a.valid_from_seq, a.valid_to_seq, s.at_seq)
    WHERE s.snapshot_id = %(snapshot_id)s
    GROUP BY i.object_id
)
SELECT i.rank, i.split, i.destination_key, i.reason, i.covering_radius, i.copy_state, i.checksum,
       o.object_id, o.bucket, o.key, o.version_id, coalesce(o.etag, '') AS etag,
       coalesce(o.size_bytes, 0) AS size_bytes, o.content_sha256, hashed.pixel_sha256,
       o.image_facts, o.quality, o.captured_at, known.attributes,
       (SELECT jsonb_agg(jsonb_build_object(
                   'id', r.ruling_id, 'kind', r.kind, 'who', r.who, 'why', r.why,
                   'said_at', r.said_at) ORDER BY r.valid_from_seq, r.ruling_id)
        FROM ruling r
        WHERE r.collection_id = s.collection_id AND i.object_id IN (r.object_id, r.other_object_id)
          AND holds_at(r.valid_from_seq, r.valid_to_seq, s.at_seq)) AS rulings
FROM snapshot s
JOIN snapshot_item i USING (snapshot_id)
JOIN object o USING (object_id)
LEFT JOIN hashed USING (object_id)
LEFT JOIN known USING (object_id)
WHERE s.snapshot_id = %(snapshot_id)s
ORDER BY i.rank

-- name: duplicate_rows
-- The duplicates of each chosen image at that point.
SELECT i.rank, o.bucket, o.key, o.version_id, d.reason, d.distance
FROM snapshot s
JOIN snapshot_item i USING (snapshot_id)
JOIN decision d ON d.representative_object_id = i.object_id
               AND d.collection_id = s.collection_id AND d.generation = s.generation
               AND d.outcome = 'duplicate' AND holds_at(d.valid_from_seq, d.valid_to_seq, s.at_seq)
JOIN object o ON o.object_id = d.object_id
WHERE s.snapshot_id = %(snapshot_id)s
ORDER BY i.rank, o.bucket, o.key, o.version_id

-- name: snapshot_object_ids
-- To grow a dataset from an earlier snapshot. An erased image has no vector to keep away from. The
-- splits also apply to new images of the same groups.
SELECT i.object_id, i.split
FROM snapshot_item i JOIN object o USING (object_id)
WHERE i.snapshot_id = %(snapshot_id)s AND o.erased_at IS NULL
ORDER BY i.rank

-- name: snapshots_holding
-- Snapshots that hold an object, to redact it in.
SELECT s.snapshot_id, s.state, s.name, s.location, i.rank, i.destination_key, i.copy_state
FROM snapshot_item i JOIN snapshot s USING (snapshot_id)
WHERE i.object_id = %(object_id)s
ORDER BY s.snapshot_id

-- name: redact_item
-- The row of an erased image stays, as the record of what is missing.
UPDATE snapshot_item SET copy_state = 'redacted'
WHERE snapshot_id = %(snapshot_id)s AND object_id = %(object_id)s

-- name: fail_unpublished
-- A list that lost an image to an erasure before publication can never be complete.
UPDATE snapshot SET state = 'failed', error = %(error)s, fence = fence + 1, lease_until = NULL
WHERE snapshot_id = %(snapshot_id)s AND state IN ('resolved', 'copying')

-- name: redactions
-- What redactions.json lists.
SELECT i.rank, i.destination_key FROM snapshot_item i
WHERE i.snapshot_id = %(snapshot_id)s AND i.copy_state = 'redacted' ORDER BY i.rank
