-- Markers of these keys in older slots. Nobody changes those, so no lock.
-- Primary key of each older slot; OFFSET 0 keeps it so on empty tables, too.
SELECT m.*
FROM unnest($1::uuid[]) AS given(key)
CROSS JOIN LATERAL (
    SELECT key, ingest_id, fingerprint, outcome
    FROM marker
    WHERE key = given.key AND slot <> (SELECT current FROM gate_slot WHERE one)
    OFFSET 0
) AS m
