-- migrate:up
-- The ledger: facts are immutable, decisions are history, indexes are derived.
-- Validity: a row holds from valid_from_seq (included) to valid_to_seq (excluded; NULL = open),
-- where seq counts the committed decision transactions of one collection.

CREATE EXTENSION IF NOT EXISTS vector;

-- One embedding space: vectors of different spaces are never compared.
CREATE TABLE model (
    space_id        text PRIMARY KEY,
    name            text NOT NULL,
    revision        text NOT NULL,
    weights_sha256  text NOT NULL,
    recipe_id       text NOT NULL,
    pooling         text NOT NULL,
    dimension       integer NOT NULL CHECK (dimension BETWEEN 1 AND 4000),
    dtype           text NOT NULL DEFAULT 'halfvec',
    created_at      timestamptz NOT NULL DEFAULT now()
);

-- One dedup scope. Its row is the lock of the decision protocol (docs/architecture.md), and seq
-- changes only under that lock.
CREATE TABLE collection (
    collection_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    sources         jsonb NOT NULL,             -- [{bucket, prefix, include[], exclude[]}]
    key_pattern     text,                       -- regular expression with named groups
    space_id        text NOT NULL REFERENCES model,
    epsilon         double precision NOT NULL CHECK (epsilon >= 0 AND epsilon <= 2),
    second_look     jsonb,                      -- rule for pairs near epsilon; NULL = embedding alone
    quality_policy  jsonb NOT NULL DEFAULT '{}',
    expiry_policy   text NOT NULL DEFAULT 'remember' CHECK (expiry_policy IN ('redecide', 'remember')),
    calibration     jsonb,                      -- which calibration epsilon came from; NULL = uncalibrated
    generation      integer NOT NULL DEFAULT 1,
    seq             bigint NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now()
);

-- The parameters each generation was decided with; redecide builds a new one beside the current.
CREATE TABLE generation (
    collection_id   integer NOT NULL REFERENCES collection ON DELETE CASCADE,
    generation      integer NOT NULL,
    epsilon         double precision NOT NULL,
    second_look     jsonb,
    state           text NOT NULL CHECK (state IN ('building', 'current', 'retired', 'discarded')),
    created_at      timestamptz NOT NULL DEFAULT now(),
    switched_at_seq bigint,
    PRIMARY KEY (collection_id, generation)
);
CREATE UNIQUE INDEX generation_one_current ON generation (collection_id) WHERE state = 'current';

-- One row per object version. Keys compare as bytes. Facts are filled in once and never changed;
-- erasure is the one exception, and leaves erased_at.
CREATE TABLE object (
    object_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bucket          text COLLATE "C" NOT NULL,
    key             text COLLATE "C" NOT NULL,
    version_id      text COLLATE "C" NOT NULL,  -- S3 version id, or "etag:..." in an unversioned bucket
    etag            text,
    size_bytes      bigint,
    sequencer       text COLLATE "C",
    content_sha256  bytea,
    pixel_sha256    bytea,
    image_facts     jsonb,
    quality         jsonb,
    captured_at     timestamptz,                -- from key pattern, metadata or EXIF, in that order
    thumbnail_key   text,
    first_seen_at   timestamptz NOT NULL DEFAULT now(),
    erased_at       timestamptz,
    UNIQUE (bucket, key, version_id)
);
CREATE INDEX object_by_content ON object (content_sha256);
CREATE INDEX object_by_pixels ON object (pixel_sha256);

-- What is known about an object besides its pixels. Precedence: sidecar, metadata, key, exif.
CREATE TABLE attribute (
    collection_id   integer NOT NULL REFERENCES collection ON DELETE CASCADE,
    object_id       bigint NOT NULL REFERENCES object,
    source          text NOT NULL CHECK (source IN ('key', 'metadata', 'exif', 'sidecar')),
    attributes      jsonb NOT NULL,             -- {name: text}
    valid_from_seq  bigint NOT NULL,
    valid_to_seq    bigint
);
CREATE UNIQUE INDEX attribute_open ON attribute (collection_id, object_id, source)
    WHERE valid_to_seq IS NULL;

-- Append-only (but for erasure): equal pixels share one vector, nothing is embedded twice.
CREATE TABLE embedding (
    space_id        text NOT NULL REFERENCES model,
    pixel_sha256    bytea NOT NULL,
    embedding       halfvec NOT NULL,
    look            bytea NOT NULL DEFAULT '',  -- second-look signals, see pixsift.core.second_look
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (space_id, pixel_sha256)
);
-- Above about 1,000 dimensions a halfvec would go to TOAST and every scan would pay a second read.
ALTER TABLE embedding ALTER COLUMN embedding SET STORAGE PLAIN;

-- The history of outcomes: rows are only ever added and closed.
CREATE TABLE decision (
    decision_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection_id   integer NOT NULL,
    generation      integer NOT NULL,
    object_id       bigint NOT NULL REFERENCES object,
    outcome         text NOT NULL
                    CHECK (outcome IN ('kept', 'duplicate', 'rejected', 'gone', 'failed')),
    reason          text NOT NULL,              -- new | content | pixels | near | near_look | blurred | ...
    detail          jsonb NOT NULL DEFAULT '{}',
    representative_object_id bigint REFERENCES object,
    distance        double precision,
    pixel_sha256    bytea,                      -- by the recipe of the collection's space; NULL: not decoded
    valid_from_seq  bigint NOT NULL,
    valid_to_seq    bigint,
    decided_at      timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (collection_id, generation) REFERENCES generation ON DELETE CASCADE,
    CHECK ((outcome = 'duplicate') = (representative_object_id IS NOT NULL)),
    CHECK (valid_to_seq IS NULL OR valid_to_seq >= valid_from_seq)
);
CREATE UNIQUE INDEX decision_open ON decision (collection_id, generation, object_id)
    WHERE valid_to_seq IS NULL;
CREATE INDEX decision_children ON decision (representative_object_id, collection_id, generation)
    WHERE valid_to_seq IS NULL AND outcome = 'duplicate';
CREATE INDEX decision_by_seq ON decision (collection_id, generation, valid_from_seq);
CREATE INDEX decision_by_object ON decision (object_id);

-- The kept ones. The two unique indexes are promise 4: byte- or pixel-identical images are never
-- both kept. No vector index here: the truth stays cheap to write.
CREATE TABLE representative (
    collection_id   integer NOT NULL,
    generation      integer NOT NULL,
    object_id       bigint NOT NULL REFERENCES object,
    space_id        text NOT NULL,
    content_sha256  bytea NOT NULL,
    pixel_sha256    bytea NOT NULL,
    valid_from_seq  bigint NOT NULL,
    valid_to_seq    bigint,
    FOREIGN KEY (collection_id, generation) REFERENCES generation ON DELETE CASCADE,
    CHECK (valid_to_seq IS NULL OR valid_to_seq >= valid_from_seq)
);
CREATE UNIQUE INDEX representative_open_pixels
    ON representative (collection_id, generation, pixel_sha256) WHERE valid_to_seq IS NULL;
CREATE UNIQUE INDEX representative_open_content
    ON representative (collection_id, generation, content_sha256) WHERE valid_to_seq IS NULL;
CREATE UNIQUE INDEX representative_open_object
    ON representative (collection_id, generation, object_id) WHERE valid_to_seq IS NULL;
CREATE INDEX representative_by_seq ON representative (collection_id, generation, valid_from_seq);
CREATE INDEX representative_closed ON representative (collection_id, generation, valid_to_seq)
    WHERE valid_to_seq IS NOT NULL;

-- Derived and rebuildable: the HNSW body of one generation, complete up to built_to_seq.
CREATE TABLE neighbor_index (
    collection_id   integer NOT NULL,
    generation      integer NOT NULL,
    body_table      text NOT NULL UNIQUE,
    built_to_seq    bigint NOT NULL DEFAULT 0,
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (collection_id, generation),
    FOREIGN KEY (collection_id, generation) REFERENCES generation ON DELETE CASCADE
);

-- Messages that were no object events. Raw bytes: a NUL would fail in text and jsonb.
CREATE TABLE anomaly (
    anomaly_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue           text NOT NULL,
    message_id      text NOT NULL,
    body            bytea NOT NULL,
    reason          text NOT NULL,
    received_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (queue, message_id, reason)
);

-- Left by an erasure, so that a replay cannot bring the image back. The salt makes the hashes
-- useless to anyone who does not already hold the image.
CREATE TABLE tombstone (
    tombstone_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bucket          text COLLATE "C" NOT NULL,
    key_hash        bytea NOT NULL,             -- of bucket, key and version id (core/tombstone.py)
    content_hash    bytea,
    salt            bytea NOT NULL,
    erased_at       timestamptz NOT NULL DEFAULT now(),
    reason          text NOT NULL DEFAULT ''
);
CREATE INDEX tombstone_by_key ON tombstone (key_hash);
CREATE INDEX tombstone_by_content ON tombstone (content_hash) WHERE content_hash IS NOT NULL;

-- One salt per ledger: every tombstone carries it, and a look-up is an index probe.
CREATE TABLE tombstone_salt (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    salt            bytea NOT NULL
);
INSERT INTO tombstone_salt (salt)
VALUES (decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));

CREATE TABLE snapshot (
    snapshot_id     text PRIMARY KEY,
    collection_id   integer NOT NULL REFERENCES collection,
    generation      integer NOT NULL,
    request_id      text NOT NULL UNIQUE,
    name            text NOT NULL,
    request         jsonb NOT NULL,
    spec_hash       text NOT NULL,
    seed            bigint NOT NULL,
    at_seq          bigint NOT NULL,
    state           text NOT NULL CHECK (state IN ('resolved', 'copying', 'published', 'failed')),
    error           text,
    report          jsonb NOT NULL DEFAULT '{}',   -- coverage, radii, counts
    location        text,
    fence           bigint NOT NULL DEFAULT 0,     -- rises with every exporter that takes over
    lease_until     timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    published_at    timestamptz,
    UNIQUE (collection_id, at_seq, spec_hash)
);

-- The list, stored before anything is copied; it never changes afterwards.
CREATE TABLE snapshot_item (
    snapshot_id     text NOT NULL REFERENCES snapshot ON DELETE CASCADE,
    rank            integer NOT NULL,
    object_id       bigint NOT NULL REFERENCES object,
    split           text NOT NULL,
    destination_key text COLLATE "C" NOT NULL,
    copy_state      text NOT NULL DEFAULT 'planned'
                    CHECK (copy_state IN ('planned', 'copied', 'redacted')),
    checksum        text,
    PRIMARY KEY (snapshot_id, rank),
    UNIQUE (snapshot_id, destination_key),
    UNIQUE (snapshot_id, object_id)
);
CREATE INDEX snapshot_item_by_object ON snapshot_item (object_id);

-- migrate:down
-- Forward only: contract in a later file.
