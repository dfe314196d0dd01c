-- Owners of rows or uploads without a heartbeat, as a restored backup can hold
-- them, get one: they count as silent from 5 s later on, unless they beat.
-- Indexes outbox_owner and file_upload_owner, one step per owner.
WITH RECURSIVE owners (owner) AS (
    SELECT '00000000-0000-0000-0000-000000000000'::uuid
    UNION ALL
    SELECT least(
        (SELECT o.owner FROM outbox o WHERE o.owner > last.owner ORDER BY o.owner LIMIT 1),
        (SELECT u.owner FROM file_upload u WHERE u.owner > last.owner ORDER BY u.owner LIMIT 1)
    )
    FROM owners last
    WHERE last.owner IS NOT NULL
)
INSERT INTO instance (id, date_seen)
SELECT owner, clock_timestamp() FROM owners
WHERE owner > '00000000-0000-0000-0000-000000000000'
ON CONFLICT (id) DO NOTHING
