-- Marks results that a bucket keeps and that are past their retention: they are
-- EXPIRED from now on, and their objects are about to be removed. Returns where the
-- walk ended, how many rows it looked at and how many it marked. Walks and locks as
-- expire_database.sql does.
WITH walked AS MATERIALIZED (
    SELECT date_created, id, storage_config
    FROM result
    WHERE organisation = $1 AND (date_created, id) > ($2, $3)
      AND date_created < now() - make_interval(secs => $5)
    ORDER BY date_created, id
    LIMIT 2000
), due AS MATERIALIZED (
    SELECT w.date_created, w.id
    FROM walked AS w
    LEFT JOIN LATERAL (SELECT id FROM expired WHERE organisation = $1 AND id = w.id OFFSET 0) AS e ON true
    WHERE w.storage_config = $4 AND e.id IS NULL
), marked AS (
    INSERT INTO expired (organisation, id, date_deleted)
    SELECT $1, id, NULL FROM due
    ON CONFLICT DO NOTHING
), no_longer_available AS (
    DELETE FROM available
    USING due
    WHERE available.organisation = $1 AND available.date_created = due.date_created AND available.id = due.id
)
SELECT last.date_created, last.id, (SELECT count(*) FROM walked) AS walked, (SELECT count(*) FROM due) AS due
FROM (SELECT date_created, id FROM walked ORDER BY date_created DESC, id DESC LIMIT 1) AS last
