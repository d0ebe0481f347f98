-- migrate:up
-- Evaluation sets: images that selections of a collection keep away from, whenever they arrived. A
-- set is a snapshot, a prefix (with whatever arrives there later), or files that lie elsewhere, of
-- which only vectors are kept. No turn: nothing is decided again. Withdrawn ones stay on record.
CREATE TABLE protected_set (
    protected_id    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    collection_id   integer NOT NULL REFERENCES collection ON DELETE CASCADE,
    kind            text NOT NULL CHECK (kind IN ('snapshot', 'prefix', 'folder')),
    snapshot_id     text REFERENCES snapshot,
    bucket          text COLLATE "C",
    prefix          text COLLATE "C",
    folder          text,                       -- its path where the files were read, for people
    distance        double precision NOT NULL CHECK (distance > 0 AND distance <= 2),
    who             text NOT NULL,
    why             text NOT NULL,
    declared_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    withdrawn_at    timestamptz,
    CHECK ((kind = 'snapshot') = (snapshot_id IS NOT NULL)),
    CHECK ((kind = 'prefix') = (bucket IS NOT NULL AND prefix IS NOT NULL)),
    CHECK ((kind = 'folder') = (folder IS NOT NULL))
);
CREATE INDEX protected_set_in_force ON protected_set (collection_id) WHERE withdrawn_at IS NULL;

-- Vectors of the files of a folder, in the embedding space of the collection when it was declared.
CREATE TABLE protected_image (
    protected_id    uuid NOT NULL REFERENCES protected_set ON DELETE CASCADE,
    space_id        text NOT NULL REFERENCES model,
    pixel_sha256    bytea NOT NULL,
    embedding       halfvec NOT NULL,
    PRIMARY KEY (protected_id, space_id, pixel_sha256)
);
ALTER TABLE protected_image ALTER COLUMN embedding SET STORAGE PLAIN;
CREATE INDEX protected_image_by_pixels ON protected_image (pixel_sha256);

-- migrate:down
-- Forward only: contract in a later file.
