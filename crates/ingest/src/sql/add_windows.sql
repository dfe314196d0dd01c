-- Presumed windows, as in insert_windows.sql. Fails if one is there.
INSERT INTO unique_window (accepted_at, key, ingest_id, slot)
SELECT clock_timestamp(), given.key, given.ingest_id, (SELECT current FROM gate_slot WHERE one)
FROM unnest($1::uuid[], $2::uuid[]) AS given(key, ingest_id)
