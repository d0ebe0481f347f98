-- migrate:up
-- One row per committed decision transaction of a collection: who made it, why, and a random token.
-- seq alone does not say which history a ledger has: one that was restored to an earlier point
-- counts the same numbers again. The token at a seq does.
-- Collections that exist begin with a row for their present seq; what was before it has none.
CREATE TABLE turn (
    collection_id   integer NOT NULL,
    seq             bigint NOT NULL,
    token           uuid NOT NULL DEFAULT gen_random_uuid(),
    actor           text NOT NULL,              -- consumer | cli | migrate | ...
    reason          text NOT NULL,              -- arrival | removal | redecide | ..., see docs/glossary.md
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (collection_id, seq)
);
INSERT INTO turn (collection_id, seq, actor, reason)
SELECT collection_id, seq, 'migrate', 'upgrade' FROM collection;

-- The order in which the duplicates of a removed image are decided again: sharper first, then
-- older. An image without a sharpness comes last, since an array compares NULL as the largest.
CREATE FUNCTION redecide_order(quality jsonb, valid_from_seq bigint, object_id bigint)
RETURNS double precision[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ARRAY[-(quality ->> 'sharpness')::float8, valid_from_seq::float8, object_id::float8]
$$;

-- migrate:down
-- Forward only: contract in a later file.
