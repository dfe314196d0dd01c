-- A new storage config, if the organisation has fewer than $10 that are in use.
-- (Two that are created at the same moment may both be the last one.) Primary
-- key; the count walks the organisation's part of it.
INSERT INTO storage_config (organisation, id, url, credentials_key, credentials, signed_urls_enabled,
                            signed_urls_seconds, managed, retention_seconds, state, date_created)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, 1, now()
WHERE (SELECT count(*) FROM storage_config WHERE organisation = $1 AND state <> 4) < $10
RETURNING *, false AS is_default
