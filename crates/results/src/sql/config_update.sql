-- Changes what may be changed, if nobody changed it since it was read. It is NEW
-- until it is probed again. Primary key.
UPDATE storage_config c
SET credentials_key = $4, credentials = $5, signed_urls_enabled = $6, signed_urls_seconds = $7,
    managed = $8, retention_seconds = $9, state = 1, state_details = '', revision = revision + 1
WHERE organisation = $1 AND id = $2 AND revision = $3 AND state <> 4
RETURNING *, EXISTS (SELECT FROM storage_default d
                     WHERE d.organisation = c.organisation AND d.storage_config = c.id) AS is_default
