-- Takes up to $2 rows that were released or whose owner has been silent for
-- 5 s. Rows another replica is taking are skipped. Index outbox_owner, one walk
-- per silent owner, so that a backlog of living ones costs nothing here.
WITH released AS MATERIALIZED (
    SELECT id FROM outbox
    WHERE owner IS NULL AND set_aside IS NULL
    ORDER BY owner, id LIMIT $2
    FOR UPDATE SKIP LOCKED
), orphaned AS MATERIALIZED (
    SELECT o.id
    FROM instance i
    CROSS JOIN LATERAL (
        SELECT id FROM outbox
        WHERE owner = i.id AND set_aside IS NULL
        ORDER BY owner, id LIMIT $2
        FOR UPDATE SKIP LOCKED
    ) AS o
    WHERE i.id <> $1 AND i.date_seen < clock_timestamp() - interval '5 seconds'
    LIMIT $2
)
UPDATE outbox SET owner = $1
WHERE id = ANY(ARRAY(SELECT id FROM released UNION ALL SELECT id FROM orphaned LIMIT $2))
RETURNING id, organisation, octet_length(payload) AS bytes
