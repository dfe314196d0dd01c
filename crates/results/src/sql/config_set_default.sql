-- Makes a VALID storage config the organisation's default. Nothing is returned if
-- there is no such one. Primary keys.
WITH chosen AS (
    INSERT INTO storage_default (organisation, storage_config)
    SELECT organisation, id FROM storage_config WHERE organisation = $1 AND id = $2 AND state = 2
    ON CONFLICT (organisation) DO UPDATE SET storage_config = excluded.storage_config
    RETURNING storage_config
)
SELECT c.*, true AS is_default
FROM storage_config c
WHERE c.organisation = $1 AND c.id = (SELECT storage_config FROM chosen)
