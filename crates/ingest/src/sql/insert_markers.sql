-- Presumed markers, as in presume.sql; those that are there stay as they are. Primary
-- key of the current slot.
INSERT INTO marker (fingerprint, key, ingest_id, outcome, slot)
SELECT given.fingerprint, given.key, given.ingest_id, $4, (SELECT current FROM gate_slot WHERE one)
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS given(key, ingest_id, fingerprint)
ON CONFLICT (key, slot) DO NOTHING
