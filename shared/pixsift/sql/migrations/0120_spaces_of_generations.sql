-- migrate:up
-- The embedding space belongs to a generation: another model or recipe is a generation built beside
-- the one in use, switched to, and undone. `collection.space_id` stays: it is the space of the
-- current generation, as the release before reads it.
-- NULL in a row that the release before writes: the space of the collection. Before a collection
-- moves to another space, its current generation's row says which one it was.
ALTER TABLE generation
    ADD COLUMN space_id text REFERENCES model,
    ADD COLUMN calibration jsonb;
UPDATE generation g SET space_id = c.space_id, calibration = c.calibration
FROM collection c WHERE c.collection_id = g.collection_id;

-- What an object is in an embedding space that has not (or not yet) decided it: the hash of its
-- pixels by that recipe, whose vector is in `embedding`; or why it has none. Filled by
-- `pixsift reembed`, and by consumers of a space that is being built. Dropped by an erasure.
CREATE TABLE object_in_space (
    space_id        text NOT NULL REFERENCES model,
    object_id       bigint NOT NULL REFERENCES object,
    pixel_sha256    bytea,
    outcome         text CHECK (outcome IN ('rejected', 'failed', 'gone')),
    reason          text NOT NULL DEFAULT '',
    detail          jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (space_id, object_id),
    CHECK ((pixel_sha256 IS NULL) = (outcome IS NOT NULL))
);
CREATE INDEX object_in_space_by_object ON object_in_space (object_id);
CREATE INDEX object_in_space_by_pixels ON object_in_space (pixel_sha256);

-- Arrivals whose messages a consumer of the space being built has acknowledged, without a decision:
-- the generation in use must decide them before the switch, or nobody would.
CREATE TABLE shadow_arrival (
    collection_id   integer NOT NULL REFERENCES collection,
    space_id        text NOT NULL,
    object_id       bigint NOT NULL,
    PRIMARY KEY (collection_id, space_id, object_id)
);

-- migrate:down
-- Forward only: contract in a later file.
