-- Windows that did not end as presumed. Every row is there: ON CONFLICT finds it
-- by the primary key of the current slot, whatever the planner knows.
INSERT INTO unique_window (key, ingest_id, accepted_at, slot)
SELECT given.key, given.ingest_id, given.accepted_at, (SELECT current FROM gate_slot WHERE one)
FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS given(key, ingest_id, accepted_at)
ON CONFLICT (key, slot) DO UPDATE
SET accepted_at = excluded.accepted_at, ingest_id = excluded.ingest_id
