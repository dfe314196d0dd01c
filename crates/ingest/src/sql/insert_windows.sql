-- Presumed windows. Keys come sorted. The moment of insertion is the moment of
-- acceptance: the row is locked from here to the commit. Primary key of the
-- current slot.
INSERT INTO unique_window (accepted_at, key, ingest_id, slot)
SELECT clock_timestamp(), given.key, given.ingest_id, (SELECT current FROM gate_slot WHERE one)
FROM unnest($1::uuid[], $2::uuid[]) AS given(key, ingest_id)
ON CONFLICT (key, slot) DO NOTHING
