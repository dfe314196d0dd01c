-- One chunk of a file. Primary key, one round trip, no locks.
SELECT bytes FROM file_chunk WHERE organisation = $1 AND id = $2 AND number = $3
