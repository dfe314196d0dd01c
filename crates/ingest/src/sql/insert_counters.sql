-- Counters that are not there yet, at zero. Keys come sorted. Primary key.
INSERT INTO throttle_counter (key, window_start, used)
SELECT key, 'epoch', 0 FROM unnest($1::uuid[]) AS given(key)
ON CONFLICT (key) DO NOTHING
