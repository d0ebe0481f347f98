-- Camera health: the facts of each frame, by an attribute that names its camera.

-- name: camera_frames
-- Every image of the current generation that was decoded and not erased, duplicates included (a
-- frozen camera produces only duplicates). Where a camera gave no time, the time of S3 or of the
-- arrival is used. Attribute sources in order of trust, as everywhere: sidecar, metadata, key,
-- exif.
SELECT CASE WHEN starts_with(o.bucket, 'file://') THEN o.bucket || '//'
            ELSE 's3://' || o.bucket || '/' END
       || o.key || '?versionId=' || o.version_id,
       coalesce(named.camera, ''),
       extract(epoch FROM coalesce(o.captured_at, o.stored_at, o.first_seen_at))::float8,
       d.pixel_sha256,
       (o.quality ->> 'brightness')::float8
FROM decision d
JOIN collection c ON c.collection_id = d.collection_id AND c.generation = d.generation
JOIN object o USING (object_id)
LEFT JOIN LATERAL (
     SELECT a.attributes ->> %(attribute)s AS camera
     FROM attribute a
     WHERE a.collection_id = d.collection_id AND a.object_id = d.object_id
       AND a.valid_to_seq IS NULL AND a.attributes ? %(attribute)s
     ORDER BY array_position(ARRAY['sidecar', 'metadata', 'key', 'exif'], a.source)
     LIMIT 1) named ON true
WHERE c.name = %(collection)s AND d.valid_to_seq IS NULL
  AND d.outcome IN ('kept', 'duplicate', 'rejected')
  AND d.pixel_sha256 IS NOT NULL AND o.erased_at IS NULL
  AND (%(since)s::timestamptz IS NULL
       OR coalesce(o.captured_at, o.stored_at, o.first_seen_at) >= %(since)s)
