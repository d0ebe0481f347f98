-- Who may ask the server, and what was changed through it.

-- name: insert_token
-- Stores the hash of a new secret; the secret itself is not stored.
INSERT INTO api_token (token_id, name, role, secret_sha256, created_by, expires_at)
VALUES (%(token_id)s, %(name)s, %(role)s, %(secret_sha256)s, %(created_by)s,
        now() + make_interval(secs => %(expires_seconds)s))
RETURNING token_id, name, role, created_by, created_at, expires_at, revoked_at, last_used_at

-- name: tokens
-- All of them, the newest first.
SELECT token_id, name, role, created_by, created_at, expires_at, revoked_at, last_used_at
FROM api_token ORDER BY created_at DESC, token_id

-- name: revoke_token
-- Revoking again changes nothing.
UPDATE api_token SET revoked_at = coalesce(revoked_at, now()) WHERE token_id = %(token_id)s
RETURNING token_id, name, role, created_by, created_at, expires_at, revoked_at, last_used_at

-- name: token
-- One token with what is compared in constant time, and whether it still counts.
SELECT name, role, secret_sha256, revoked_at IS NOT NULL AS is_revoked,
       expires_at IS NOT NULL AND expires_at <= now() AS is_expired
FROM api_token WHERE token_id = %(token_id)s

-- name: touch_token
-- When a token was last used, to the minute: a write per request would be too many.
UPDATE api_token SET last_used_at = now()
WHERE token_id = %(token_id)s
  AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')

-- name: insert_action
-- Who asked for what.
INSERT INTO action (actor, action, collection, detail)
VALUES (%(actor)s, %(action)s, %(collection)s, %(detail)s)
RETURNING action_id

-- name: actions
-- The newest first; older ones by the id of the last one seen.
SELECT action_id, at, actor, action, collection, detail FROM action
WHERE (%(before)s::bigint IS NULL OR action_id < %(before)s)
  AND (%(collection)s::text IS NULL OR collection = %(collection)s)
ORDER BY action_id DESC LIMIT %(limit)s

-- name: turns
-- Decision transactions of a collection, the newest first: who made them, and why.
SELECT seq, actor, reason, at FROM turn
WHERE collection_id = %(collection_id)s AND (%(before)s::bigint IS NULL OR seq < %(before)s)
ORDER BY seq DESC LIMIT %(limit)s
