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
        SELECT id, block FROM result
        WHERE organisation = $1 AND date_created = commits.date_created AND block IS NOT NULL
        OFFSET 0
    ) AS r
    LEFT JOIN LATERAL (SELECT id FROM expired WHERE organisation = $1 AND id = r.id OFFSET 0) AS e ON true
    WHERE e.id IS NULL AND r.id NOT IN (SELECT id FROM due)
), blocks AS (
    DELETE FROM data_block
    WHERE organisation = $1
      AND id = ANY (ARRAY(SELECT DISTINCT block FROM due WHERE block IS NOT NULL
                          EXCEPT SELECT block FROM still_needed))
), chunks AS (
    DELETE FROM file_chunk
    WHERE organisation = $1 AND id = ANY (ARRAY(SELECT id FROM due WHERE block IS NULL))
)
SELECT last.date_created, last.id, (SELECT count(*) FROM walked) AS walked, (SELECT count(*) FROM due) AS due
FROM (SELECT date_created, id FROM walked ORDER BY date_created DESC, id DESC LIMIT 1) AS last
