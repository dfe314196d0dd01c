-- Done with a storage config for now. Primary key.
UPDATE cleanup_progress SET lease = NULL
WHERE organisation = $1 AND storage_config = $2 AND lease = $3
