-- Which entries of the journal outside the database this ledger has carried out.

-- name: which_ledger
-- Another server, a restart, another database behind the name, tables that were restored in place:
-- each counts as another ledger until it has carried out the journal's entries.
SELECT concat_ws('/', extract(epoch FROM pg_postmaster_start_time()),
                 (SELECT oid FROM pg_database WHERE datname = current_database()),
                 'obligation'::regclass::oid)

-- name: met
-- Which of these entries are carried out.
SELECT journal_key FROM obligation WHERE journal_key = ANY (%(keys)s::text[])

-- name: meet
-- In the same transaction or after it: an entry may be carried out twice.
INSERT INTO obligation (journal_key, kind) VALUES (%(key)s, %(kind)s)
ON CONFLICT (journal_key) DO NOTHING
