-- migrate:up
-- Keep-best, off by default: by how much a better image takes the place of its representative. A
-- parameter of the rule, hence of a generation.
ALTER TABLE generation ADD COLUMN keep_best double precision CHECK (keep_best > 0);

-- What rests on an image keeps its place, from a seq on that a later replay finds again: where the
-- collection was when a list was stored, a set declared or withdrawn. NULL: by an older release.
ALTER TABLE snapshot ADD COLUMN resolved_seq bigint;
ALTER TABLE protected_set ADD COLUMN declared_seq bigint, ADD COLUMN withdrawn_seq bigint;

-- migrate:down
-- Forward only: contract in a later file.
