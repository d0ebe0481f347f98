-- migrate:up
-- How many objects have an outcome now, per collection, generation, outcome, reason and flag: kept
-- by delta in the transaction that changes them, so that nobody counts ten million rows to see
-- them. `pixsift audit` compares them with a recount.
CREATE TABLE outcome_count (
    collection_id   integer NOT NULL,
    generation      integer NOT NULL,
    outcome         text NOT NULL,
    reason          text NOT NULL,
    flag            text NOT NULL,              -- '': the objects; a name: those of them with that flag
    objects         bigint NOT NULL,
    PRIMARY KEY (collection_id, generation, outcome, reason, flag)
) WITH (fillfactor = 50);                       -- every turn updates rows in place

-- Under which flags a decision with this detail is counted: '' for itself, and each that it has.
CREATE FUNCTION counted_under(detail jsonb) RETURNS SETOF text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT '' UNION ALL
    SELECT jsonb_array_elements_text(detail -> 'flags')
    WHERE jsonb_typeof(detail -> 'flags') = 'array'
$$;

-- A trigger, since a counter must hold whoever writes: during a deployment the release before this
-- one still does. One statement per statement that writes; sorted, so that two cannot deadlock.
CREATE FUNCTION count_outcomes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO outcome_count AS c
        SELECT n.collection_id, n.generation, n.outcome, n.reason, f.flag, count(*)
        FROM new_rows n
        CROSS JOIN LATERAL counted_under(n.detail) AS f (flag)
        WHERE n.valid_to_seq IS NULL
        GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT (collection_id, generation, outcome, reason, flag)
        DO UPDATE SET objects = c.objects + excluded.objects;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO outcome_count AS c
        SELECT o.collection_id, o.generation, o.outcome, o.reason, f.flag, -count(*)
        FROM old_rows o
        CROSS JOIN LATERAL counted_under(o.detail) AS f (flag)
        WHERE o.valid_to_seq IS NULL
        GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT (collection_id, generation, outcome, reason, flag)
        DO UPDATE SET objects = c.objects + excluded.objects;
    ELSE
        INSERT INTO outcome_count AS c
        SELECT v.collection_id, v.generation, v.outcome, v.reason, f.flag, sum(v.delta)
        FROM (SELECT *, -1 AS delta FROM old_rows WHERE valid_to_seq IS NULL
              UNION ALL SELECT *, 1 FROM new_rows WHERE valid_to_seq IS NULL) AS v
        CROSS JOIN LATERAL counted_under(v.detail) AS f (flag)
        GROUP BY 1, 2, 3, 4, 5 HAVING sum(v.delta) <> 0 ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT (collection_id, generation, outcome, reason, flag)
        DO UPDATE SET objects = c.objects + excluded.objects;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER count_added AFTER INSERT ON decision
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION count_outcomes();
CREATE TRIGGER count_changed AFTER UPDATE ON decision
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION count_outcomes();
CREATE TRIGGER count_dropped AFTER DELETE ON decision
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION count_outcomes();

-- What is there already, counted once while the triggers' lock keeps writers off.
INSERT INTO outcome_count
SELECT d.collection_id, d.generation, d.outcome, d.reason, f.flag, count(*)
FROM decision d
CROSS JOIN LATERAL counted_under(d.detail) AS f (flag)
WHERE d.valid_to_seq IS NULL
GROUP BY 1, 2, 3, 4, 5;

-- migrate:down
-- Forward only: contract in a later file.
