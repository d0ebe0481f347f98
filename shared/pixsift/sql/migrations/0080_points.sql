-- migrate:up
-- The two questions every reader of the past asks, with one answer each.

-- Whether a row that is valid from from_seq (included) to to_seq (excluded; NULL = open) holds at
-- seq s. One expression over its arguments, so that PostgreSQL puts it in place of the call and
-- uses the indexes on both columns, as if it were written out.
CREATE FUNCTION holds_at(from_seq bigint, to_seq bigint, s bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN from_seq <= s AND (to_seq IS NULL OR to_seq > s);

-- The generation of a collection that was current at seq s; s NULL, or before the first: the one
-- that is current now.
CREATE FUNCTION generation_at(of_collection integer, s bigint) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(
    (SELECT g.generation FROM generation g
      WHERE s IS NOT NULL AND g.collection_id = of_collection AND g.state IN ('current', 'retired')
        AND coalesce(g.switched_at_seq, 0) <= s
      ORDER BY coalesce(g.switched_at_seq, 0) DESC, g.generation DESC LIMIT 1),
    (SELECT c.generation FROM collection c WHERE c.collection_id = of_collection));

-- migrate:down
-- Forward only: contract in a later file.
