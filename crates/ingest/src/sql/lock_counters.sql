-- Counters of these keys, locked in the order of the keys, which come sorted.
-- Primary key; OFFSET 0 keeps it so on empty tables, too.
SELECT c.*
FROM unnest($1::uuid[]) AS given(key)
CROSS JOIN LATERAL (
    SELECT key, window_start, used FROM throttle_counter WHERE key = given.key OFFSET 0 FOR UPDATE
) AS c
