-- Rows whose results are all recorded. Primary key.
DELETE FROM outbox WHERE id = ANY($1)
