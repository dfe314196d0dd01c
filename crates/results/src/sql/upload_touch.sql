-- An upload goes on; nothing is returned if it was given up meanwhile. Primary
-- key.
UPDATE upload SET date_touched = clock_timestamp(), multipart = coalesce($4, multipart)
WHERE organisation = $1 AND id = $2 AND storage_config = $3 AND state = 1
RETURNING id
