-- Windows of these keys that others opened in the current slot, locked in the
-- order of the keys, which come sorted. Primary key of the current slot; OFFSET
-- 0 keeps it so on empty tables, too.
SELECT w.*
FROM unnest($1::uuid[], $2::uuid[]) AS given(key, ingest_id)
CROSS JOIN LATERAL (
    SELECT key, ingest_id, accepted_at
    FROM unique_window
    WHERE key = given.key AND slot = (SELECT current FROM gate_slot WHERE one)
      AND ingest_id <> given.ingest_id
    OFFSET 0
    FOR UPDATE
) AS w
