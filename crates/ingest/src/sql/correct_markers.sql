-- Markers that did not end as presumed. Every row is there: ON CONFLICT finds it
-- by the primary key of the current slot, whatever the planner knows.
INSERT INTO marker (key, ingest_id, fingerprint, outcome, slot)
SELECT given.key, given.ingest_id, given.fingerprint, given.outcome,
       (SELECT current FROM gate_slot WHERE one)
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::smallint[]) AS given(key, ingest_id, fingerprint, outcome)
ON CONFLICT (key, slot) DO UPDATE
SET outcome = excluded.outcome, ingest_id = excluded.ingest_id, fingerprint = excluded.fingerprint
