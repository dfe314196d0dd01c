-- Takes up to $2 rows that were released or whose owner has been silent for
-- 5 s. Rows another replica is taking are skipped. Index outbox_owner.
UPDATE outbox SET owner = $1
WHERE id = ANY(ARRAY(
    SELECT o.id FROM outbox o
    WHERE o.set_aside IS NULL
      AND (o.owner IS NULL OR o.owner = ANY(ARRAY(
            SELECT i.id FROM instance i
            WHERE i.id <> $1 AND i.date_seen < clock_timestamp() - interval '5 seconds')))
    ORDER BY o.id LIMIT $2
    FOR UPDATE SKIP LOCKED))
RETURNING id, organisation, octet_length(payload) AS bytes
