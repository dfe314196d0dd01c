-- Marks results that a bucket keeps and that are past their retention: they are
-- EXPIRED from now on, and their objects are about to be removed. Returns where the
-- walk ended, how many ids it looked at and how many it marked, and whether a batch has
-- changed. Walks, locks and is asked for again as expire_database.sql is.
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
    SELECT w.date_created, w.id, r.poll
    FROM walked AS w
    CROSS JOIN LATERAL (
        SELECT poll, storage_config FROM result WHERE organisation = $1 AND id = w.id OFFSET 0
    ) AS r
    LEFT JOIN LATERAL (SELECT id FROM expired WHERE organisation = $1 AND id = w.id OFFSET 0) AS e ON true
    WHERE r.storage_config = $4 AND e.id IS NULL
), found AS MATERIALIZED (
    SELECT batches.date_created, batches.poll, waiting.first_id, waiting.place
    FROM (SELECT DISTINCT date_created, poll FROM old ORDER BY date_created, poll) AS batches
    CROSS JOIN LATERAL (
        SELECT ctid AS place, first_id FROM available
        WHERE organisation = $1 AND date_created = batches.date_created AND poll = batches.poll
        ORDER BY first_id
        OFFSET 0
    ) AS waiting
), locked AS MATERIALIZED (
    SELECT found.place, waiting.ids, found.place <> waiting.place AS changed
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
    SELECT place, ids <@ ARRAY(SELECT id FROM due) AS emptied, ids && ARRAY(SELECT id FROM due) AS lessened
    FROM locked
), emptied AS (
    DELETE FROM available
    WHERE ctid = ANY (ARRAY(SELECT place FROM settled WHERE emptied))
), lessened AS (
    UPDATE available
    SET ids = ARRAY(SELECT unnest(ids) EXCEPT SELECT unnest(ARRAY(SELECT id FROM due)) ORDER BY 1)
    WHERE ctid = ANY (ARRAY(SELECT place FROM settled WHERE lessened AND NOT emptied))
), marked AS (
    INSERT INTO expired (organisation, id, date_deleted)
    SELECT $1, id, NULL FROM due
    ON CONFLICT DO NOTHING
)
SELECT last.date_created, last.id, (SELECT count(*) FROM walked) AS walked, (SELECT count(*) FROM due) AS due,
       EXISTS (SELECT FROM locked WHERE changed) AS changed
FROM (SELECT date_created, id FROM walked ORDER BY date_created DESC, id DESC LIMIT 1) AS last
