-- What is known of a file before its bytes: whether its marker was processed,
-- how full its throttle window is, and the time. Nothing is locked: what the
-- answer rests on never changes back while the window lasts. Primary keys;
-- OFFSET 0 keeps it so on empty tables, too.
SELECT clock_timestamp() AS now,
       m.key AS marker, m.outcome, m.ingest_id, m.fingerprint,
       c.key AS counter, c.window_start, c.used
FROM (VALUES (1)) AS always
LEFT JOIN LATERAL (
    SELECT key, outcome, ingest_id, fingerprint FROM marker WHERE key = $1 OFFSET 0 LIMIT 1
) AS m ON true
LEFT JOIN LATERAL (
    SELECT key, window_start, used FROM throttle_counter WHERE key = $2 OFFSET 0
) AS c ON true
