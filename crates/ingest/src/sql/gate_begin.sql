-- The lock is that of `GATE_LOCK`: shared with all gates, exclusive in roll_over.sql.
BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT pg_advisory_xact_lock_shared(x'67617465'::bigint)
