-- Shared with all gates, exclusive in gate_roll_over. No index.
SELECT pg_advisory_xact_lock_shared($1)
