-- The longest window any definition asks for, in seconds. A scan, once a minute.
SELECT coalesce(max(greatest(unique_seconds, throttle_period_seconds)), 0)::bigint
FROM definition WHERE NOT deleted
