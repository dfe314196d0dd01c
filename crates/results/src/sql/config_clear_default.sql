-- The organisation's default is the built-in `db` again. Primary key.
DELETE FROM storage_default WHERE organisation = $1
