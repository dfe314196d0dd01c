-- Windows of these keys that others opened in the current slot, locked in the
-- order of the keys. Primary key of the current slot.
SELECT w.key, w.ingest_id, w.accepted_at
FROM unnest($1::uuid[], $2::uuid[]) AS given(key, ingest_id)
JOIN unique_window w ON w.key = given.key AND w.slot = (SELECT current FROM gate_slot)
WHERE w.ingest_id <> given.ingest_id
ORDER BY w.key
FOR UPDATE OF w
