-- The same credentials under another key, if nobody changed them since they were
-- read. Primary key.
UPDATE storage_config SET credentials_key = $4, credentials = $5
WHERE organisation = $1 AND id = $2 AND revision = $3
