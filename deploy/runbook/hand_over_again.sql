-- Gives what is set aside back to ingest, of which any replica hands it over again
-- within seconds. Recording is idempotent, so this is safe at any time. Run as the
-- database's owner, when the cause is mended.
UPDATE outbox
SET set_aside = NULL, owner = NULL
WHERE set_aside IS NOT NULL;
