-- An organisation's records that one storage config keeps and that have not
-- expired, after a place, at most 10,000 ids looked at; the last row, without a
-- size, says where to go on. Walks the key of `batch`; OFFSET 0 keeps the lookups by
-- the whole key. One round trip, no locks.
WITH walked AS MATERIALIZED (
    SELECT b.date_created, member.id
    FROM batch AS b
    CROSS JOIN LATERAL unnest(b.ids) AS member(id)
    WHERE b.organisation = $1
      AND b.date_created >= $2
      AND (b.date_created, member.id) > ($2, $3)
    ORDER BY b.date_created, member.id
    LIMIT 10000
)
SELECT w.date_created, w.id, r.size
FROM walked AS w
CROSS JOIN LATERAL (
    SELECT size, poll, storage_config FROM result WHERE organisation = $1 AND id = w.id OFFSET 0
) AS r
LEFT JOIN LATERAL (
    SELECT first_id FROM expired
    WHERE organisation = $1 AND date_created = w.date_created AND poll = r.poll AND w.id = ANY(ids)
    OFFSET 0
) AS e ON true
WHERE r.storage_config = $4 AND e.first_id IS NULL
UNION ALL
(SELECT date_created, id, NULL::bigint FROM walked ORDER BY date_created DESC, id DESC LIMIT 1)
