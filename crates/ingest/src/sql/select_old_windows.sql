-- Windows of these keys in older slots. Nobody changes those, so no lock.
-- Primary key of each older slot.
SELECT w.key, w.ingest_id, w.accepted_at
FROM unnest($1::uuid[]) AS given(key)
JOIN unique_window w ON w.key = given.key AND w.slot <> (SELECT current FROM gate_slot)
