-- migrate:up
-- Standing queries: every image that arrives is compared with each watch of its collection, and what
-- is near enough is a hit. See docs/watches.md.
CREATE TABLE watch (
    watch_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection_id   integer NOT NULL REFERENCES collection ON DELETE CASCADE,
    name            text NOT NULL,
    space_id        text NOT NULL REFERENCES model,   -- what its vectors may be compared in
    max_distance    double precision NOT NULL CHECK (max_distance >= 0 AND max_distance <= 2),
    condition       jsonb NOT NULL,             -- the filter, as snapshot requests have it
    duplicates      boolean NOT NULL,           -- whether duplicates are matched as well as kept images
    destination     text NOT NULL CHECK (destination IN ('ledger', 'events')),
    examples        jsonb NOT NULL,             -- per mode, the names of its examples: for people
    example_pixels  bytea[] NOT NULL,           -- so that an erasure finds what was made of an image
    created_by      text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    from_seq        bigint NOT NULL,            -- every later turn of the collection knows the watch
    ended_at        timestamptz,
    ended_why       text
);
CREATE UNIQUE INDEX watch_open_name ON watch (collection_id, name) WHERE ended_at IS NULL;

-- What images are compared with; dropped when a watch ends.
CREATE TABLE watch_vector (
    watch_id        bigint NOT NULL REFERENCES watch ON DELETE CASCADE,
    is_against      boolean NOT NULL,           -- a counterexample
    mode            integer NOT NULL,
    embedding       halfvec NOT NULL,
    PRIMARY KEY (watch_id, is_against, mode)
);
ALTER TABLE watch_vector ALTER COLUMN embedding SET STORAGE PLAIN;

-- One row per collection that ever had a watch. The token is another one after every change of its
-- watches: a consumer reads it under the collection's lock and so never decides with old ones.
CREATE TABLE watch_state (
    collection_id   integer PRIMARY KEY REFERENCES collection ON DELETE CASCADE,
    token           uuid NOT NULL
);

-- Exactly one per watch and image, in the transaction that decided the image.
CREATE TABLE watch_hit (
    hit_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    watch_id        bigint NOT NULL REFERENCES watch ON DELETE CASCADE,
    object_id       bigint NOT NULL REFERENCES object,
    collection_id   integer NOT NULL,
    seq             bigint,                     -- the turn that decided it; NULL: found in the past
    outcome         text NOT NULL,
    distance        double precision NOT NULL,
    mode            integer NOT NULL,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    is_due          boolean NOT NULL,           -- to be announced on the event bus
    claimed_until   timestamptz,                -- a process is at it
    announced_at    timestamptz
);
CREATE UNIQUE INDEX watch_hit_one ON watch_hit (watch_id, object_id);
CREATE INDEX watch_hit_newest ON watch_hit (watch_id, hit_id);
CREATE INDEX watch_hit_by_seq ON watch_hit (collection_id, seq) WHERE seq IS NOT NULL;
CREATE INDEX watch_hit_due ON watch_hit (hit_id) WHERE is_due;
CREATE INDEX watch_hit_by_object ON watch_hit (object_id);

-- migrate:down
-- Forward only: contract in a later file.
