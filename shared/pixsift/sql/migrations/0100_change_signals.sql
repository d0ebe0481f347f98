-- migrate:up
-- Signals of the test for change, see pixsift.core.change; '' where the image was stored before there
-- were any. Beside `look`, so that a consumer of the release before reads what it knows.
-- EXTERNAL: four incompressible kilobytes, out of line, where scans of vectors do not meet them.
ALTER TABLE embedding ADD COLUMN change bytea NOT NULL DEFAULT '';
ALTER TABLE embedding ALTER COLUMN change SET STORAGE EXTERNAL;

-- migrate:down
-- Forward only: contract in a later file.
