-- Whether vacuum is at work anywhere on the server. No locks.
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'
