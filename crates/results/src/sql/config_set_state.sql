-- What a probe found of the storage config as it was when it was probed. Primary
-- key.
UPDATE storage_config c
SET state = $4, state_details = $5, date_probed = now()
WHERE organisation = $1 AND id = $2 AND revision = $3 AND state <> 4
RETURNING *, EXISTS (SELECT FROM storage_default d
                     WHERE d.organisation = c.organisation AND d.storage_config = c.id) AS is_default
