-- What autovacuum would have done to tables that have been there for long.
VACUUM (ANALYZE)
