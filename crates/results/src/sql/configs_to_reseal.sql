-- Storage configs whose credentials are encrypted by another key than the present
-- one. A scan of a table that has few rows per organisation.
SELECT *, false AS is_default FROM storage_config
WHERE credentials_key <> $1
LIMIT 100
