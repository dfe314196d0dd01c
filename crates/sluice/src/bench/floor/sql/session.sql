-- Durable commits whatever the server's defaults are, and plans that are made once
-- and walk the keys, whatever the statistics say.
SET synchronous_commit = on;
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET jit = off;
