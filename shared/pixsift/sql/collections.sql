-- The registry: embedding spaces, and collections with their settings.

-- name: ensure_space
-- A space's id is a hash of everything else in its row, so a conflict is always the same row.
INSERT INTO model (space_id, name, revision, weights_sha256, recipe_id, pooling, dimension)
VALUES (%(space_id)s, %(name)s, %(revision)s, %(weights_sha256)s, %(recipe_id)s, %(pooling)s,
        %(dimension)s)
ON CONFLICT (space_id) DO NOTHING

-- name: space
-- What a space is made of.
SELECT name, revision, weights_sha256, recipe_id, pooling, dimension FROM model
WHERE space_id = %(space_id)s

-- name: space_dimension
-- The length of the vectors of a space.
SELECT dimension FROM model WHERE space_id = %(space_id)s

-- name: insert_collection
-- The first generation comes with the collection: a decision always has its parameters. So does
-- the turn of seq 0: every seq that a collection ever had has one.
WITH added AS (
    INSERT INTO collection (name, sources, key_pattern, space_id, epsilon, second_look,
                            quality_policy, expiry_policy, calibration)
    VALUES (%(name)s, %(sources)s, %(key_pattern)s, %(space_id)s, %(epsilon)s, %(second_look)s,
            %(quality_policy)s, %(expiry_policy)s, %(calibration)s)
    ON CONFLICT (name) DO NOTHING
    RETURNING collection_id, epsilon, second_look, seq, space_id, calibration
), first_turn AS (
    INSERT INTO turn (collection_id, seq, actor, reason)
    SELECT collection_id, seq, %(actor)s, 'created' FROM added
)
INSERT INTO generation (collection_id, generation, epsilon, second_look, keep_best, state, space_id,
                        calibration)
SELECT collection_id, 1, epsilon, second_look, %(keep_best)s, 'current', space_id, calibration
FROM added
RETURNING collection_id

-- name: collections
-- Epsilon and the second look are those of the current generation.
SELECT c.collection_id, c.name, c.sources, c.key_pattern, c.space_id, g.epsilon, g.second_look,
       c.quality_policy, c.expiry_policy, c.calibration, c.generation, c.seq, g.keep_best
FROM collection c JOIN generation g USING (collection_id, generation)
WHERE (%(space_id)s::text IS NULL OR c.space_id = %(space_id)s)
  AND (%(name)s::text IS NULL OR c.name = %(name)s)
ORDER BY c.collection_id
