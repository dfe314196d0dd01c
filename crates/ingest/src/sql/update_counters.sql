-- Counters after this batch. Every row is there and locked: ON CONFLICT finds it
-- by the primary key, whatever the planner knows.
INSERT INTO throttle_counter (key, window_start, used)
SELECT given.key, given.window_start, given.used
FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[]) AS given(key, window_start, used)
ON CONFLICT (key) DO UPDATE SET window_start = excluded.window_start, used = excluded.used
