-- What must be gone when nothing is under way.
SELECT 'outbox' AS kind, id::text FROM outbox
UNION ALL SELECT 'file_upload', id::text FROM file_upload
