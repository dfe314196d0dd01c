-- Markers that did not end as presumed. Primary key of the current slot.
UPDATE marker m
SET outcome = given.outcome, ingest_id = given.ingest_id, fingerprint = given.fingerprint
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::smallint[]) AS given(key, ingest_id, fingerprint, outcome)
WHERE m.key = given.key AND m.slot = (SELECT current FROM gate_slot)
