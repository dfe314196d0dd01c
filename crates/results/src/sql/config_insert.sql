-- A new storage config, if the organisation has fewer than $10 that are in use, and fewer than
-- $11 with those that are DEACTIVATED.
-- (Two that are created at the same moment may both be the last one.) Primary
-- key; the count walks the organisation's part of it.
INSERT INTO storage_config (organisation, id, url, credentials_key, credentials, signed_urls_enabled,
                            signed_urls_seconds, managed, retention_seconds, state, date_created)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, 1, now()
FROM (
    SELECT count(*) AS of_all, count(*) FILTER (WHERE state <> 4) AS in_use
    FROM storage_config WHERE organisation = $1
) AS its
WHERE in_use < $10 AND of_all < $11
RETURNING *, false AS is_default
