-- Takes up to $2 rows that were released or whose owner has been silent for
-- 5 s. Rows another replica is taking are skipped, and so is an owner of whose sessions
-- one is at the gate or asked for: the rows taken from it end them (see V4__gate_pass),
-- and that would wait. Indexes outbox_owner and gate_session_instance, one walk
-- per silent owner, so that a backlog of living ones costs nothing here.
WITH silent AS MATERIALIZED (
    SELECT i.id
    FROM instance i
    CROSS JOIN LATERAL (
        SELECT FROM outbox WHERE owner = i.id AND set_aside IS NULL LIMIT 1
    ) AS has_rows
    WHERE i.id <> $1 AND i.date_seen < clock_timestamp() - interval '5 seconds'
), idle AS MATERIALIZED (
    SELECT s.id
    FROM silent i
    CROSS JOIN LATERAL (
        SELECT id FROM gate_session WHERE instance = i.id ORDER BY id FOR UPDATE SKIP LOCKED
    ) AS s
), released AS MATERIALIZED (
    SELECT id FROM outbox
    WHERE owner IS NULL AND set_aside IS NULL
    ORDER BY owner, id LIMIT $2
    FOR UPDATE SKIP LOCKED
), orphaned AS MATERIALIZED (
    SELECT o.id
    FROM silent i
    CROSS JOIN LATERAL (
        SELECT id FROM outbox
        WHERE owner = i.id AND set_aside IS NULL
        ORDER BY owner, id LIMIT $2
        FOR UPDATE SKIP LOCKED
    ) AS o
    WHERE NOT EXISTS (
        SELECT FROM gate_session s
        WHERE s.instance = i.id AND s.id <> ALL (ARRAY(SELECT id FROM idle))
    )
    LIMIT $2
)
UPDATE outbox SET owner = $1
WHERE id = ANY(ARRAY(SELECT id FROM released UNION ALL SELECT id FROM orphaned LIMIT $2))
RETURNING id, organisation, results, octet_length(payload) AS bytes
