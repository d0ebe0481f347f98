-- migrate:up
-- Which entries of the journal outside the database (operations/obligations.py) this ledger has
-- met. A ledger that was restored lacks the rows of what was journaled since, and meets it again.
CREATE TABLE obligation (
    journal_key     text PRIMARY KEY,
    kind            text NOT NULL,
    met_at          timestamptz NOT NULL DEFAULT now()
);

-- migrate:down
-- Forward only: contract in a later file.
