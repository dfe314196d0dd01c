-- Counters of these keys, locked in the order of the keys. Primary key.
SELECT c.key, c.window_start, c.used
FROM unnest($1::uuid[]) AS given(key)
JOIN throttle_counter c ON c.key = given.key
ORDER BY c.key
FOR UPDATE OF c
