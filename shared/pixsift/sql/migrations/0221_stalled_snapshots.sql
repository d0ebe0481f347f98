-- migrate:up
-- A snapshot that ends every exporter (a bug, too little memory) must not be tried for ever: stalls
-- counts the exporters that ended without giving their lease back and without progress since the
-- claim before. progress: images copied and files written at the last claim; -1: never claimed.
ALTER TABLE snapshot
    ADD COLUMN progress bigint NOT NULL DEFAULT -1,
    ADD COLUMN stalls integer NOT NULL DEFAULT 0;

-- migrate:down
-- Forward only: contract in a later file.
