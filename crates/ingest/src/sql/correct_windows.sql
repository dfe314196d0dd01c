-- Windows that did not end as presumed. Primary key of the current slot.
UPDATE unique_window w
SET accepted_at = given.accepted_at, ingest_id = given.ingest_id
FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS given(key, ingest_id, accepted_at)
WHERE w.key = given.key AND w.slot = (SELECT current FROM gate_slot)
