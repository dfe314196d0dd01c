-- Expires batches that one storage config keeps ($3; nil: the built-in `db`), past their
-- retention ($4 seconds), if that is still what it says. From now on their results are
-- EXPIRED. Data in blocks is gone at once: blocks that nobody needs any more go in the same
-- commit. Files, and objects of a bucket, are about to be removed, however long that takes.
-- Returns where the walk ended, how many results it expired, how many of these nobody had
-- consumed, and whether a batch has changed since the statement began: then nothing was
-- done, and the same is to be asked for again.
--
-- Walks the key of `batch` from moment to moment, at most 200 batches and what else is of
-- the last moment; the others are lookups by key, which OFFSET 0 keeps so on empty tables,
-- too. What is AVAILABLE is locked and changed as acknowledge.sql does. A block of an
-- earlier build may hold what several storage configs keep: it is needed as long as a batch
-- of another one of the same commit, which has the same `date_created`, has not expired.
WITH walked AS MATERIALIZED (
    SELECT date_created, poll, first_id, ids, storage_config, block
    FROM batch
    WHERE organisation = $1
      AND date_created > $2 AND date_created < now() - make_interval(secs => $4)
      AND ($3 = '00000000-0000-0000-0000-000000000000'::uuid
           OR EXISTS (SELECT FROM storage_config
                      WHERE organisation = $1 AND id = $3 AND managed AND retention_seconds = $4))
    ORDER BY date_created
    FETCH FIRST 200 ROWS WITH TIES
), old AS MATERIALIZED (
    SELECT w.date_created, w.poll, w.first_id, w.ids, w.block
    FROM walked AS w
    LEFT JOIN LATERAL (
        SELECT first_id FROM expired
        WHERE organisation = $1 AND date_created = w.date_created AND poll = w.poll AND first_id = w.first_id
        OFFSET 0
    ) AS e ON true
    WHERE w.storage_config = $3 AND e.first_id IS NULL
), found AS MATERIALIZED (
    SELECT batches.date_created, batches.poll, batches.first_id, waiting.place
    FROM (SELECT * FROM old ORDER BY date_created, poll, first_id) AS batches
    CROSS JOIN LATERAL (
        SELECT ctid AS place FROM available
        WHERE organisation = $1 AND date_created = batches.date_created
          AND poll = batches.poll AND first_id = batches.first_id
        OFFSET 0
    ) AS waiting
), locked AS MATERIALIZED (
    SELECT found.place, found.place <> waiting.place AS changed
    FROM found
    CROSS JOIN LATERAL (
        SELECT ctid AS place FROM available
        WHERE organisation = $1 AND date_created = found.date_created
          AND poll = found.poll AND first_id = found.first_id
        OFFSET 0
        FOR UPDATE
    ) AS waiting
), due AS MATERIALIZED (
    SELECT * FROM old WHERE NOT EXISTS (SELECT FROM locked WHERE changed)
), emptied AS (
    DELETE FROM available USING locked
    WHERE available.ctid = locked.place AND NOT EXISTS (SELECT FROM locked WHERE changed)
    RETURNING cardinality(available.ids) AS results
), marked AS (
    INSERT INTO expired (date_created, date_deleted, first_id, storage_config, organisation, poll, ids)
    SELECT date_created, CASE WHEN block IS NOT NULL THEN now() END, first_id, $3, $1, poll, ids FROM due
    ON CONFLICT DO NOTHING
    RETURNING cardinality(ids) AS results
), still_needed AS MATERIALIZED (
    SELECT others.block
    FROM (SELECT DISTINCT date_created FROM due WHERE block IS NOT NULL) AS commits
    CROSS JOIN LATERAL (
        SELECT poll, first_id, block FROM batch
        WHERE organisation = $1 AND date_created = commits.date_created AND storage_config <> $3
        OFFSET 0
    ) AS others
    LEFT JOIN LATERAL (
        SELECT first_id FROM expired
        WHERE organisation = $1 AND date_created = commits.date_created
          AND poll = others.poll AND first_id = others.first_id
        OFFSET 0
    ) AS e ON true
    WHERE others.block IS NOT NULL AND e.first_id IS NULL
), unneeded AS MATERIALIZED (
    SELECT $1 AS organisation, block FROM due WHERE block IS NOT NULL EXCEPT SELECT $1, block FROM still_needed
), blocks AS (
    -- Each in its own week. ANY keeps the planner from a walk of all that the organisation
    -- has there.
    DELETE FROM data_block USING unneeded
    WHERE data_block.organisation = ANY (ARRAY[unneeded.organisation]) AND data_block.id = unneeded.block
)
SELECT last.date_created,
       (SELECT coalesce(sum(results), 0) FROM marked)::bigint AS marked,
       (SELECT coalesce(sum(results), 0) FROM emptied)::bigint AS unconsumed,
       EXISTS (SELECT FROM locked WHERE changed) AS changed
FROM (SELECT date_created FROM walked ORDER BY date_created DESC LIMIT 1) AS last
