-- What health needs to know: is the server durable, is it a primary, and does
-- the schema fit. One round trip, no locks, a table of a few rows.
SELECT current_setting('fsync') = 'on'            AS fsync,
       pg_is_in_recovery()                        AS in_recovery,
       (SELECT max(version) FROM refinery_schema_history)::int AS version
