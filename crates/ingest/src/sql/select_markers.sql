-- Markers of these keys in any slot, other than the ones this transaction just
-- inserted. A committed marker never changes, so no lock. Primary key, one
-- probe per key and slot.
SELECT m.key, m.ingest_id, m.fingerprint, m.outcome,
       m.slot = (SELECT current FROM gate_slot) AS in_current_slot
FROM unnest($1::uuid[], $2::uuid[]) AS given(key, ingest_id)
JOIN marker m ON m.key = given.key
WHERE m.ingest_id IS DISTINCT FROM given.ingest_id
