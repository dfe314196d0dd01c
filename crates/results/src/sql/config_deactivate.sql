-- Takes a storage config out of use, for good; the default is no longer it.
-- Primary keys.
WITH no_default AS (
    DELETE FROM storage_default WHERE organisation = $1 AND storage_config = $2
)
UPDATE storage_config
SET state = 4, state_details = '', revision = revision + CASE state WHEN 4 THEN 0 ELSE 1 END
WHERE organisation = $1 AND id = $2
RETURNING *, false AS is_default
