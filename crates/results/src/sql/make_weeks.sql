-- Makes the partitions of this week and of the two that follow, and says what
-- became of each. One round trip; an advisory lock (the bytes of `weeks`) lets
-- one replica at a time do it. Where something is to be made, `result` and the
-- others are locked for the moment it takes, or not at all after `lock_timeout`.
WITH alone AS MATERIALIZED (SELECT pg_advisory_xact_lock(x'7765656B73'::bigint))
SELECT made.partition, made.state
FROM alone, generate_series(0, 2) AS weeks,
     LATERAL make_week(clock_timestamp() + weeks * interval '7 days') AS made
WHERE made.state <> 'exists'
