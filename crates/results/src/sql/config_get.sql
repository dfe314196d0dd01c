-- One storage config. Primary key, one round trip, no locks.
SELECT c.*, EXISTS (SELECT FROM storage_default d
                    WHERE d.organisation = c.organisation AND d.storage_config = c.id) AS is_default
FROM storage_config c
WHERE c.organisation = $1 AND c.id = $2
