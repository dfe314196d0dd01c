-- Uploads that nobody sees to any more, locked. One that a gate holds is skipped:
-- it decides. Primary key.
SELECT id, organisation FROM file_upload WHERE id = ANY($1::uuid[]) FOR UPDATE SKIP LOCKED
