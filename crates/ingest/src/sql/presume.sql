-- Presumed markers (outcome success), then presumed windows, then what older slots say of
-- these keys, and the moment of gate_moment.sql, in its own row. Fails if one of them is
-- in the current slot, which is cheaper to find out, where none is, than to look first.
--
-- One statement instead of five. That windows are counted after markers, and the moment
-- is read after windows, puts them in this order: keys come sorted, so concurrent gates
-- wait for each other in one direction. Nobody changes older slots, so no lock there.
-- Primary keys of each slot.
WITH markers AS (
    INSERT INTO marker (fingerprint, key, ingest_id, outcome, slot)
    SELECT given.fingerprint, given.key, given.ingest_id, $4, (SELECT current FROM gate_slot WHERE one)
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS given(key, ingest_id, fingerprint)
    RETURNING 1
), windows AS (
    INSERT INTO unique_window (accepted_at, key, ingest_id, slot)
    SELECT clock_timestamp(), given.key, given.ingest_id, (SELECT current FROM gate_slot WHERE one)
    FROM unnest($5::uuid[], $6::uuid[]) AS given(key, ingest_id)
    WHERE (SELECT count(*) FROM markers) >= 0
    RETURNING 1
)
SELECT 'moment' AS what, clock_timestamp() AS now, (SELECT revision FROM registry_revision) AS revision,
       pg_current_xact_id()::text AS xid,
       NULL::uuid AS key, NULL::uuid AS ingest_id, NULL::bigint AS fingerprint, NULL::smallint AS outcome,
       NULL::timestamptz AS accepted_at
WHERE (SELECT count(*) FROM windows) >= 0
UNION ALL
SELECT 'marker', NULL, NULL, NULL, key, ingest_id, fingerprint, outcome, NULL
FROM marker
WHERE key = ANY ($1::uuid[]) AND slot <> (SELECT current FROM gate_slot WHERE one)
UNION ALL
SELECT 'window', NULL, NULL, NULL, key, ingest_id, NULL, NULL, accepted_at
FROM unique_window
WHERE key = ANY ($5::uuid[]) AND slot <> (SELECT current FROM gate_slot WHERE one)
