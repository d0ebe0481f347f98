-- migrate:up
-- Who may ask the server, and what people and programs changed through it.

-- Bearer tokens. Only a hash of the secret is stored: 256 random bits need no salt and no slow hash.
CREATE TABLE api_token (
    token_id        text PRIMARY KEY,           -- the public part, shown in lists and in actions
    name            text NOT NULL,
    role            text NOT NULL CHECK (role IN ('viewer', 'reviewer', 'operator')),
    secret_sha256   bytea NOT NULL,
    created_by      text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz,                -- NULL: never
    revoked_at      timestamptz,
    last_used_at    timestamptz
);

-- One row per change that was asked for through the server: who, when, what, and how it ended. Turns
-- tell the same of decisions; this covers what takes no turn as well (redrives, requests, tokens).
CREATE TABLE action (
    action_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor           text NOT NULL,
    action          text NOT NULL,              -- take_back | redecide | redrive | token_create | ...
    collection      text,
    detail          jsonb NOT NULL DEFAULT '{}'
);

-- Pages of rare outcomes, newest first, without a walk through everything that was kept.
CREATE INDEX decision_rare_by_seq ON decision
    (collection_id, generation, outcome, valid_from_seq, decision_id)
    WHERE outcome IN ('rejected', 'gone', 'failed');

-- migrate:down
-- Forward only: contract in a later file.
