-- A file's chunks. Primary key.
DELETE FROM file_chunk WHERE organisation = $1 AND id = $2
