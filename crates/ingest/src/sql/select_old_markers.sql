-- Markers of these keys in older slots. Nobody changes those, so no lock. Primary
-- key of each older slot.
SELECT key, ingest_id, fingerprint, outcome
FROM marker
WHERE key = ANY ($1::uuid[]) AND slot <> (SELECT current FROM gate_slot WHERE one)
