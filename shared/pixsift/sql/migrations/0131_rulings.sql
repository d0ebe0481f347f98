-- migrate:up
-- What people said of images, per collection: decisions obey it before any rule. Keyed by object
-- version, since recipes change, and pixels' hashes with them. Valid from one seq to another, like
-- everything that decides: it holds through redelivery, redecide, reembed and a new epsilon, and its
-- turns say who said it and who took it back. The id is random, so that a journal outside of the
-- ledger can bring a ruling back to a restored one, once.
CREATE TABLE ruling (
    ruling_id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    collection_id   integer NOT NULL REFERENCES collection ON DELETE CASCADE,
    kind            text NOT NULL
                    CHECK (kind IN ('choose', 'also_keep', 'same', 'not_same', 'useless')),
    object_id       bigint NOT NULL REFERENCES object,
    other_object_id bigint REFERENCES object,
    who             text NOT NULL,
    why             text NOT NULL,
    batch           uuid,                       -- rulings that were said together
    said_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    valid_from_seq  bigint NOT NULL,
    valid_to_seq    bigint,
    CHECK ((kind IN ('same', 'not_same')) = (other_object_id IS NOT NULL)),
    CHECK (other_object_id <> object_id),
    CHECK (valid_to_seq IS NULL OR valid_to_seq >= valid_from_seq)
);
-- One ruling of an image, but it may differ from many.
CREATE UNIQUE INDEX ruling_open_object ON ruling (collection_id, object_id)
    WHERE valid_to_seq IS NULL AND kind <> 'not_same';
CREATE UNIQUE INDEX ruling_open_pair ON ruling
    (collection_id, least(object_id, other_object_id), greatest(object_id, other_object_id))
    WHERE valid_to_seq IS NULL AND kind = 'not_same';
CREATE INDEX ruling_open_about ON ruling (collection_id, object_id) WHERE valid_to_seq IS NULL;
CREATE INDEX ruling_open_other ON ruling (collection_id, other_object_id)
    WHERE valid_to_seq IS NULL AND other_object_id IS NOT NULL;
CREATE INDEX ruling_by_seq ON ruling (collection_id, valid_from_seq);
CREATE INDEX ruling_by_batch ON ruling (batch) WHERE batch IS NOT NULL;

-- migrate:down
-- Forward only: contract in a later file.
