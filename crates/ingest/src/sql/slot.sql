-- The longest window any definition asks for, and for how long the gate's current slot
-- has been filled, in seconds. A scan, once a minute.
SELECT
    (SELECT coalesce(max(greatest(unique_seconds, throttle_period_seconds)), 0)::bigint
     FROM definition WHERE NOT deleted),
    extract(epoch FROM clock_timestamp() - since)::float8
FROM gate_slot
