-- The objects of these are confirmed to be gone. Primary key.
UPDATE expired SET date_deleted = now()
WHERE organisation = $1 AND id = ANY($2) AND date_deleted IS NULL
