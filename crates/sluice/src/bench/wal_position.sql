-- How far the server's log of changes has been written, in bytes. No locks.
SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint
