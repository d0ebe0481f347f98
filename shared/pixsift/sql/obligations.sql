-- What the journal outside the database obliges this ledger to.

-- name: which_ledger
-- Another server, a restart, another database behind the name, tables that were restored in place:
-- each of them is another ledger until it has met the journal's obligations.
SELECT concat_ws('/', extract(epoch FROM pg_postmaster_start_time()),
                 (SELECT oid FROM pg_database WHERE datname = current_database()),
                 'obligation'::regclass::oid)

-- name: met
-- Which of these entries are met.
SELECT journal_key FROM obligation WHERE journal_key = ANY (%(keys)s::text[])

-- name: meet
-- In the transaction that meets it, or after it: an entry may be met twice.
INSERT INTO obligation (journal_key, kind) VALUES (%(key)s, %(kind)s)
ON CONFLICT (journal_key) DO NOTHING
