-- Markers of these keys in any slot, other than the ones this transaction just
-- inserted. A committed marker never changes, so no lock. Primary key, one
-- probe per key and slot; OFFSET 0 keeps it so on empty tables, too.
SELECT m.*
FROM unnest($1::uuid[], $2::uuid[]) AS given(key, ingest_id)
CROSS JOIN LATERAL (
    SELECT key, ingest_id, fingerprint, outcome,
           slot = (SELECT current FROM gate_slot WHERE one) AS in_current_slot
    FROM marker
    WHERE key = given.key AND ingest_id IS DISTINCT FROM given.ingest_id
    OFFSET 0
) AS m
