-- Expires results that the results database keeps itself, past their retention:
-- record by record they become EXPIRED, and blocks and chunks that nobody needs any
-- more go, all in one commit. Returns where the walk ended, how many rows it looked
-- at and how many it expired.
--
-- Walks `result_by_date`, at most 2,000 rows of it; the others are lookups by
-- primary key, which OFFSET 0 keeps so on empty tables, too. A block is needed as long
-- as another record of the same commit, which has the same `date_created`, has not
-- expired.
WITH walked AS MATERIALIZED (
    SELECT date_created, id, block, storage_config
    FROM result
    WHERE organisation = $1 AND (date_created, id) > ($2, $3)
      AND date_created < now() - make_interval(secs => $5)
    ORDER BY date_created, id
    LIMIT 2000
), due AS MATERIALIZED (
    SELECT w.date_created, w.id, w.block
    FROM walked AS w
    LEFT JOIN LATERAL (SELECT id FROM expired WHERE organisation = $1 AND id = w.id OFFSET 0) AS e ON true
    WHERE w.storage_config IS NOT DISTINCT FROM $4 AND e.id IS NULL
), marked AS (
    INSERT INTO expired (organisation, id, date_deleted)
    SELECT $1, id, now() FROM due
    ON CONFLICT DO NOTHING
), no_longer_available AS (
    DELETE FROM available
    USING due
    WHERE available.organisation = $1 AND available.date_created = due.date_created AND available.id = due.id
), still_needed AS MATERIALIZED (
    SELECT DISTINCT r.block
    FROM (SELECT DISTINCT date_created FROM due) AS commits
    CROSS JOIN LATERAL (
        -- In order, so that it is read by that index in empty partitions, too; a
        -- commit has up to 1,000 records.
        SELECT id, block FROM result
        WHERE organisation = $1
          AND (date_created, id) > (commits.date_created, '00000000-0000-0000-0000-000000000000')
          AND (date_created, id) < (commits.date_created, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        ORDER BY date_created, id
        LIMIT 10000
    ) AS r
    LEFT JOIN LATERAL (SELECT id FROM expired WHERE organisation = $1 AND id = r.id OFFSET 0) AS e ON true
    WHERE r.block IS NOT NULL AND e.id IS NULL AND r.id NOT IN (SELECT id FROM due)
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
        WHERE due.block IS NULL
    ))
)
SELECT last.date_created, last.id, (SELECT count(*) FROM walked) AS walked, (SELECT count(*) FROM due) AS due
FROM (SELECT date_created, id FROM walked ORDER BY date_created DESC, id DESC LIMIT 1) AS last
