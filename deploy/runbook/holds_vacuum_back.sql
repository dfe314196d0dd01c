-- Who keeps vacuum from removing rows of this database that are gone, the one that began
-- first on top, and what ends it. Run as a superuser, or as a member of pg_read_all_stats:
-- others don't see it of other users' sessions.
--
-- A standby with hot_standby_feedback shows as a session (of its walsender) or, if it has
-- one, as its slot.
SELECT 'session' AS kind, pid::text AS name, usename AS "user", application_name, state, xact_start AS since,
       greatest(age(backend_xmin), age(backend_xid)) AS transactions_since,
       format('SELECT pg_terminate_backend(%s)', pid) AS ends_it
FROM pg_stat_activity
WHERE (datname = current_database() OR datname IS NULL) AND pid <> pg_backend_pid()
  AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
UNION ALL
SELECT 'prepared transaction', gid, owner, NULL, NULL, prepared, age(transaction), format('ROLLBACK PREPARED %L', gid)
FROM pg_prepared_xacts
WHERE database = current_database()
UNION ALL
SELECT 'replication slot', slot_name, NULL, NULL, CASE WHEN active THEN 'active' ELSE 'inactive' END, NULL, age(xmin),
       format('SELECT pg_drop_replication_slot(%L)', slot_name)
FROM pg_replication_slots
WHERE xmin IS NOT NULL
ORDER BY transactions_since DESC, since;
