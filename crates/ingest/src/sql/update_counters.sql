-- Counters after this batch. Primary key; rows are locked already.
UPDATE throttle_counter c
SET window_start = given.window_start, used = given.used
FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[]) AS given(key, window_start, used)
WHERE c.key = given.key
