-- Everything the ledger knows about one object version, for `pixsift explain`.

-- name: versions_of_key
-- Newest first: S3's sequencer orders the writes of one key (right-padded, as text); versions
-- without one (backfilled) fall back to the order of arrival.
SELECT object_id, bucket, key, version_id, etag, size_bytes, sequencer,
       encode(content_sha256, 'hex') AS content_sha256, encode(pixel_sha256, 'hex') AS pixel_sha256,
       image_facts, quality, captured_at, stored_at, thumbnail_key, first_seen_at, erased_at
FROM object
WHERE bucket = %(bucket)s AND key = %(key)s
  AND (%(version_id)s::text IS NULL OR version_id = %(version_id)s)
ORDER BY rpad(upper(coalesce(sequencer, '')), 64, '0') COLLATE "C" DESC, object_id DESC

-- name: similar_keys
-- A hint for a mistyped key: known keys that begin like it.
SELECT DISTINCT key FROM object
WHERE bucket = %(bucket)s AND key >= %(prefix)s AND key < %(prefix)s || U&'\+10FFFF'
ORDER BY key LIMIT 3

-- name: history
-- Every decision about the object, in every collection and generation, oldest first.
SELECT c.collection_id, c.name AS collection, d.generation, d.outcome, d.reason, d.detail,
       d.representative_object_id, r.bucket AS representative_bucket, r.key AS representative_key,
       r.version_id AS representative_version_id, d.distance, d.valid_from_seq, d.valid_to_seq,
       d.decided_at, d.generation = c.generation AS is_current_generation
FROM decision d
JOIN collection c USING (collection_id)
LEFT JOIN object r ON r.object_id = d.representative_object_id
WHERE d.object_id = %(object_id)s
ORDER BY c.name, d.generation, d.valid_from_seq, d.decision_id

-- name: rules
-- The rule of each generation that judged the object.
SELECT c.collection_id, c.name AS collection, m.space_id, m.name AS model, m.recipe_id,
       g.generation, g.state, g.epsilon, g.second_look,
       CASE WHEN g.space_id IS NULL THEN c.calibration ELSE g.calibration END AS calibration,
       c.seq, c.generation AS current_generation
FROM generation g JOIN collection c USING (collection_id)
JOIN model m ON m.space_id = coalesce(g.space_id, c.space_id)
WHERE (g.collection_id, g.generation) IN
      (SELECT collection_id, generation FROM decision WHERE object_id = %(object_id)s)
ORDER BY c.name, g.generation

-- name: attributes_of
-- Open rows; the sources in rising precedence, so that a later one overwrites.
SELECT c.name AS collection, a.source, a.attributes, a.valid_from_seq
FROM attribute a JOIN collection c USING (collection_id)
WHERE a.object_id = %(object_id)s AND a.valid_to_seq IS NULL
ORDER BY c.name, array_position(ARRAY['exif', 'key', 'metadata', 'sidecar'], a.source)

-- name: stored_vectors
-- The stored halves, exactly as any decision saw them. A remembered representative is gone, but its
-- row still tells its pixels.
SELECT v.object_id, e.embedding, e.look || e.change AS look
FROM (SELECT object_id, pixel_sha256 FROM decision
      WHERE collection_id = %(collection_id)s AND generation = %(generation)s
        AND object_id = ANY(%(object_ids)s) AND valid_to_seq IS NULL
        AND pixel_sha256 IS NOT NULL
      UNION
      SELECT object_id, pixel_sha256 FROM representative
      WHERE collection_id = %(collection_id)s AND generation = %(generation)s
        AND object_id = ANY(%(object_ids)s) AND valid_to_seq IS NULL) AS v
JOIN embedding e ON e.space_id = %(space_id)s AND e.pixel_sha256 = v.pixel_sha256

-- name: version
-- One object, as people know it.
SELECT bucket, key, version_id FROM object WHERE object_id = %(object_id)s

-- name: stands_for
-- The duplicates an object represents now: how many, and the nearest few.
SELECT count(*) OVER () AS total, o.bucket, o.key, o.version_id, d.reason, d.distance
FROM decision d JOIN collection c USING (collection_id, generation)
JOIN object o ON o.object_id = d.object_id
WHERE d.representative_object_id = %(object_id)s AND c.name = %(collection)s
  AND d.valid_to_seq IS NULL AND d.outcome = 'duplicate'
ORDER BY d.distance, d.object_id LIMIT 5

-- name: rulings_of
-- What people said of the object, the oldest first.
SELECT r.ruling_id::text, c.name AS collection, r.kind, o.bucket, o.key, o.version_id,
       p.bucket AS other_bucket, p.key AS other_key, p.version_id AS other_version_id,
       r.who, r.why, r.batch::text, r.said_at, r.valid_from_seq AS from_seq,
       r.valid_to_seq AS to_seq
FROM ruling r JOIN collection c USING (collection_id)
JOIN object o ON o.object_id = r.object_id
LEFT JOIN object p ON p.object_id = r.other_object_id
WHERE r.object_id = %(object_id)s OR r.other_object_id = %(object_id)s
ORDER BY r.valid_from_seq, r.said_at

-- name: snapshots_with
-- The snapshots that hold the object.
SELECT s.snapshot_id, s.name, s.state, s.at_seq, s.location, s.published_at,
       i.rank, i.split, i.destination_key, i.copy_state
FROM snapshot_item i JOIN snapshot s USING (snapshot_id)
WHERE i.object_id = %(object_id)s ORDER BY s.created_at
