-- What is set aside in ingest's database, and why. Run as the database's owner.
-- Reads only the few rows that are set aside, by a scan of the outbox.
SELECT id, organisation, results, format, date_created, octet_length(payload) AS bytes, set_aside AS reason
FROM outbox
WHERE set_aside IS NOT NULL
ORDER BY date_created;
