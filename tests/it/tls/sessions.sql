-- The services' own sessions on this database, and whether each is encrypted.
SELECT activity.application_name, encryption.ssl
FROM pg_stat_activity AS activity
JOIN pg_stat_ssl AS encryption USING (pid)
WHERE activity.datname = current_database() AND activity.application_name LIKE 'sluice-%'
