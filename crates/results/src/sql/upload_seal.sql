-- All bytes are there; nothing is returned if it was given up meanwhile. Primary
-- key.
UPDATE upload
SET state = 2, size = $4, checksum = $5, type = $6, multipart = NULL, date_touched = clock_timestamp()
WHERE organisation = $1 AND id = $2 AND storage_config = $3 AND state = 1
RETURNING id
