-- migrate:up
-- Rulings are written to the journal outside the database, so that a restored ledger obeys them again
-- (docs/adr/0190). Which entry tells that a ruling was said, and which that it was taken back; NULL:
-- none yet. Whoever can write the journal writes what is missing, after an outage of S3 too.
ALTER TABLE ruling ADD COLUMN said_in text;
ALTER TABLE ruling ADD COLUMN ended_in text;
CREATE INDEX ruling_not_journaled ON ruling (collection_id)
    WHERE said_in IS NULL OR (valid_to_seq IS NOT NULL AND ended_in IS NULL);

-- migrate:down
-- Forward only: contract in a later file.
