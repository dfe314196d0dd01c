-- Presumed markers: outcome success. Fails if one is there, which is cheaper to find
-- out, where none is, than to look first. Keys come sorted, so concurrent gates wait
-- for each other in one order. Primary key of the current slot.
INSERT INTO marker (fingerprint, key, ingest_id, outcome, slot)
SELECT given.fingerprint, given.key, given.ingest_id, $4, (SELECT current FROM gate_slot WHERE one)
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS given(key, ingest_id, fingerprint)
