-- migrate:up
-- S3's own time of the write. It stands in where neither key, metadata nor EXIF tell when a picture
-- was taken (captured_at is NULL then, which marks it), and never takes the place of a better time.
ALTER TABLE object ADD COLUMN stored_at timestamptz;

-- migrate:down
-- Forward only: contract in a later file.
