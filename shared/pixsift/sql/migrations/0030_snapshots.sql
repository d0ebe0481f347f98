-- migrate:up
-- Every request taken, so that a repetition finds its answer and a refusal is on record. at_seq is
-- pinned here when a request is first seen: "now" must mean the same to its second delivery.
CREATE TABLE snapshot_request (
    request_id      text PRIMARY KEY,
    body            jsonb NOT NULL,
    collection_id   integer REFERENCES collection,
    generation      integer,
    at_seq          bigint,
    snapshot_id     text REFERENCES snapshot,
    error           text,                       -- why there is no snapshot; NULL while there may be
    received_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX snapshot_request_by_snapshot ON snapshot_request (snapshot_id);

-- When the outcome was told on the event bus; NULL = not yet.
ALTER TABLE snapshot ADD COLUMN announced_at timestamptz;
ALTER TABLE snapshot_item
    ADD COLUMN reason text NOT NULL DEFAULT '',
    ADD COLUMN covering_radius double precision;

-- Files of a snapshot other than the images, as they were written: resuming skips them.
CREATE TABLE snapshot_file (
    snapshot_id     text NOT NULL REFERENCES snapshot ON DELETE CASCADE,
    path            text COLLATE "C" NOT NULL,
    size_bytes      bigint NOT NULL,
    sha256          text NOT NULL,
    PRIMARY KEY (snapshot_id, path)
);

-- migrate:down
-- Forward only: contract in a later file.
