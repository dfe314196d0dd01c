-- Expires results that one storage config keeps ($4; null: the built-in `db`), past their
-- retention. From now on they are EXPIRED. What the results database keeps itself ($6) is
-- gone at once: blocks and chunks that nobody needs any more go in the same commit. Objects
-- of a bucket are about to be removed. Returns where the walk ended, how many ids it looked
-- at and how many it expired; and whether a batch has changed since the statement began:
-- then nothing was done, and the same is to be asked for again.
--
-- Walks the key of `batch`, at most 2,000 ids of it; the others are lookups by key,
-- which OFFSET 0 keeps so on empty tables, too. What is AVAILABLE is locked and changed
-- as acknowledge.sql does. A block is needed as long as another record of the same
-- commit, which has the same `date_created`, has not expired.
WITH walked AS MATERIALIZED (
    SELECT b.date_created, member.id
    FROM batch AS b
    CROSS JOIN LATERAL unnest(b.ids) AS member(id)
    WHERE b.organisation = $1
      AND b.date_created >= $2 AND b.date_created < now() - make_interval(secs => $5)
      AND (b.date_created, member.id) > ($2, $3)
    ORDER BY b.date_created, member.id
    LIMIT 2000
), old AS MATERIALIZED (
    SELECT w.date_created, w.id, r.poll, r.block
    FROM walked AS w
    CROSS JOIN LATERAL (
        SELECT poll, block, storage_config FROM result WHERE organisation = $1 AND id = w.id OFFSET 0
    ) AS r
    LEFT JOIN LATERAL (SELECT id FROM expired WHERE organisation = $1 AND id = w.id OFFSET 0) AS e ON true
    WHERE r.storage_config IS NOT DISTINCT FROM $4 AND e.id IS NULL
), found AS MATERIALIZED (
    SELECT batches.date_created, batches.poll, batches.ids AS old, waiting.first_id, waiting.place
    FROM (
        SELECT date_created, poll, array_agg(id) AS ids FROM old
        GROUP BY date_created, poll
        ORDER BY date_created, poll
    ) AS batches
    CROSS JOIN LATERAL (
        SELECT ctid AS place, first_id FROM available
        WHERE organisation = $1 AND date_created = batches.date_created AND poll = batches.poll
        ORDER BY first_id
        OFFSET 0
    ) AS waiting
), locked AS MATERIALIZED (
    SELECT found.old, found.place, waiting.ids, found.place <> waiting.place AS changed
    FROM found
    CROSS JOIN LATERAL (
        SELECT ctid AS place, ids FROM available
        WHERE organisation = $1 AND date_created = found.date_created
          AND poll = found.poll AND first_id = found.first_id
        OFFSET 0
        FOR UPDATE
    ) AS waiting
), due AS MATERIALIZED (
    SELECT * FROM old WHERE NOT EXISTS (SELECT FROM locked WHERE changed)
), settled AS MATERIALIZED (
    SELECT place, ids, ARRAY(SELECT unnest(ids) EXCEPT SELECT unnest(old) ORDER BY 1) AS rest
    FROM locked
    WHERE NOT EXISTS (SELECT FROM locked WHERE changed)
), emptied AS (
    DELETE FROM available USING settled WHERE available.ctid = settled.place AND settled.rest = '{}'
), lessened AS (
    UPDATE available SET ids = settled.rest
    FROM settled
    WHERE available.ctid = settled.place AND settled.rest <> '{}' AND settled.rest <> settled.ids
), marked AS (
    INSERT INTO expired (organisation, id, date_deleted)
    SELECT $1, id, CASE WHEN $6 THEN now() END FROM due
    ON CONFLICT DO NOTHING
), still_needed AS MATERIALIZED (
    SELECT DISTINCT r.block
    FROM (SELECT DISTINCT date_created FROM due WHERE block IS NOT NULL) AS commits
    CROSS JOIN LATERAL (
        SELECT ids FROM batch WHERE organisation = $1 AND date_created = commits.date_created OFFSET 0
    ) AS b
    CROSS JOIN LATERAL unnest(b.ids) AS member(id)
    CROSS JOIN LATERAL (
        SELECT block FROM result WHERE organisation = $1 AND id = member.id OFFSET 0
    ) AS r
    LEFT JOIN LATERAL (SELECT id FROM expired WHERE organisation = $1 AND id = member.id OFFSET 0) AS e ON true
    WHERE r.block IS NOT NULL AND e.id IS NULL AND member.id NOT IN (SELECT id FROM due)
), unneeded AS MATERIALIZED (
    SELECT block FROM due WHERE block IS NOT NULL EXCEPT SELECT block FROM still_needed
), blocks AS (
    -- By place, so that the planner has no choice of what to read (IS TRUE is no
    -- condition of an index); places repeat over partitions, ids don't.
    DELETE FROM data_block
    WHERE (id = ANY (ARRAY(SELECT block FROM unneeded))) IS TRUE
      AND ctid = ANY (ARRAY(
        SELECT kept.place
        FROM unneeded
        CROSS JOIN LATERAL (
            SELECT ctid AS place FROM data_block
            WHERE organisation = $1 AND id = unneeded.block OFFSET 0
        ) AS kept
    ))
), chunks AS (
    DELETE FROM file_chunk
    WHERE ctid = ANY (ARRAY(
        SELECT kept.place
        FROM due
        CROSS JOIN LATERAL (
            SELECT ctid AS place FROM file_chunk WHERE organisation = $1 AND id = due.id OFFSET 0
        ) AS kept
        WHERE due.block IS NULL AND $6
    ))
)
SELECT last.date_created, last.id, (SELECT count(*) FROM walked) AS walked, (SELECT count(*) FROM due) AS due,
       EXISTS (SELECT FROM locked WHERE changed) AS changed
FROM (SELECT date_created, id FROM walked ORDER BY date_created DESC, id DESC LIMIT 1) AS last
