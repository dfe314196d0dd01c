-- Read after all locks are held: the one clock of all windows, the definitions'
-- revision, and this transaction's id for finding out later how it ended.
SELECT clock_timestamp() AS now,
       (SELECT revision FROM registry_revision) AS revision,
       pg_current_xact_id()::text AS xid
