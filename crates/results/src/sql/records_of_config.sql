-- An organisation's records that one storage config keeps and that have not
-- expired, after a place, at most 10,000 rows looked at; the last row, without a
-- size, says where to go on. Walks `result_by_date`; OFFSET 0 keeps the lookups by
-- the whole key. One round trip, no locks.
WITH walked AS MATERIALIZED (
    SELECT date_created, id, size, storage_config
    FROM result
    WHERE organisation = $1 AND (date_created, id) > ($2, $3)
    ORDER BY date_created, id
    LIMIT 10000
)
SELECT w.date_created, w.id, w.size
FROM walked AS w
LEFT JOIN LATERAL (SELECT id FROM expired WHERE organisation = $1 AND id = w.id OFFSET 0) AS e ON true
WHERE w.storage_config = $4 AND e.id IS NULL
UNION ALL
(SELECT date_created, id, NULL::bigint FROM walked ORDER BY date_created DESC, id DESC LIMIT 1)
