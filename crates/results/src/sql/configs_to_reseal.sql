-- Storage configs whose credentials are encrypted by another key than the present one,
-- after a place ($2, $3). A walk along the primary key of a table that has few rows per
-- organisation.
SELECT *, false AS is_default FROM storage_config
WHERE credentials_key <> $1 AND (organisation, id) > ($2, $3)
ORDER BY organisation, id
LIMIT 100
