-- Uploads that are decided; the outbox says how. Locked already. Primary key.
DELETE FROM file_upload WHERE id = ANY($1)
