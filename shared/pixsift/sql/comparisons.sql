-- Two generations of a collection side by side: what another model or rule decides otherwise.

-- name: shares
-- How many objects have which outcome in the one and in the other, and how many duplicates have
-- another representative.
SELECT a.outcome, b.outcome, count(*),
       count(*) FILTER (WHERE a.outcome = 'duplicate' AND b.outcome = 'duplicate'
                          AND a.representative_object_id <> b.representative_object_id)
FROM decision a
JOIN decision b ON b.collection_id = a.collection_id AND b.generation = %(other)s
     AND b.object_id = a.object_id AND holds_at(b.valid_from_seq, b.valid_to_seq, %(seq)s)
WHERE a.collection_id = %(collection_id)s AND a.generation = %(generation)s
  AND holds_at(a.valid_from_seq, a.valid_to_seq, %(seq)s)
GROUP BY a.outcome, b.outcome ORDER BY a.outcome, b.outcome

-- name: disagreements
-- Objects that only one of the two generations calls a duplicate of a kept image, evenly from the
-- nearest to the farthest: both ends are what a reader looks at. found: of how many.
WITH found AS (
    SELECT a.object_id,
           CASE WHEN b.outcome = 'duplicate' THEN b.representative_object_id
                ELSE a.representative_object_id END AS representative,
           CASE WHEN b.outcome = 'duplicate' THEN b.distance ELSE a.distance END AS distance,
           CASE WHEN b.outcome = 'duplicate' THEN b.reason ELSE a.reason END AS reason
    FROM decision a
    JOIN decision b ON b.collection_id = a.collection_id AND b.generation = %(other)s
         AND b.object_id = a.object_id AND holds_at(b.valid_from_seq, b.valid_to_seq, %(seq)s)
    WHERE a.collection_id = %(collection_id)s AND a.generation = %(generation)s
      AND holds_at(a.valid_from_seq, a.valid_to_seq, %(seq)s)
      AND a.outcome = %(was)s AND b.outcome = %(becomes)s
), ranked AS (
    SELECT *, row_number() OVER (ORDER BY distance, object_id) - 1 AS place,
           count(*) OVER () AS found
    FROM found
)
SELECT object_id, representative, distance, reason FROM ranked
WHERE found <= %(most)s
   OR place IN (SELECT round(i * (found - 1)::numeric / greatest(%(most)s - 1, 1))::bigint
                FROM generate_series(0, %(most)s - 1) AS i)
ORDER BY place
