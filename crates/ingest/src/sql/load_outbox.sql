-- The payloads of rows this instance owns. Primary key.
SELECT id, format, payload FROM outbox WHERE id = ANY($1) AND owner = $2
