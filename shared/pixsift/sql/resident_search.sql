-- name: point
-- First: everything up to this seq is committed, and the reads after this one see it.
SELECT c.seq,
       coalesce(t.token, '00000000-0000-0000-0000-000000000000') AS token,
       c.generation, m.dimension
FROM collection c JOIN model m USING (space_id) LEFT JOIN turn t USING (collection_id, seq)
WHERE c.collection_id = %(collection_id)s

-- name: token_at
-- Which history a mirror is of: the token of its watermark's turn, if there was such a turn.
SELECT coalesce(t.token, '00000000-0000-0000-0000-000000000000')
FROM collection c LEFT JOIN turn t ON t.collection_id = c.collection_id AND t.seq = %(watermark)s
WHERE c.collection_id = %(collection_id)s AND c.seq >= %(watermark)s

-- name: load
-- The first time: every open representative newer than a floor, in the one layout that the
-- parser knows.
COPY (
    SELECT r.object_id, r.valid_from_seq, e.embedding
    FROM representative r JOIN embedding e USING (space_id, pixel_sha256)
    WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
      AND r.valid_from_seq > %(floor)s AND r.valid_to_seq IS NULL
) TO STDOUT (FORMAT binary)

-- name: closed
-- Representatives that ended since the mirror's watermark. One that ended after the new head was
-- read may be removed early: it can only come back as a new row.
SELECT object_id FROM representative
WHERE collection_id = %(collection_id)s AND generation = %(generation)s
  AND valid_to_seq > %(watermark)s AND valid_from_seq <= %(watermark)s

-- name: opened
-- Representatives that began since then and are still open. Those newer than the new head are read
-- next time. LIMIT 1: see tail in ledger.sql.
SELECT r.object_id, r.valid_from_seq, e.embedding
FROM representative r
CROSS JOIN LATERAL (
    SELECT v.embedding FROM embedding v
    WHERE v.space_id = r.space_id AND v.pixel_sha256 = r.pixel_sha256 LIMIT 1
) e
WHERE r.collection_id = %(collection_id)s AND r.generation = %(generation)s
  AND r.valid_from_seq > %(watermark)s AND r.valid_to_seq IS NULL
ORDER BY r.valid_from_seq, r.object_id
