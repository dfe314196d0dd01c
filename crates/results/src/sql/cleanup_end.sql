-- Ends the clean-up of a storage config that is not there any more. Primary key.
DELETE FROM cleanup_progress WHERE organisation = $1 AND storage_config = $2 AND lease = $3
