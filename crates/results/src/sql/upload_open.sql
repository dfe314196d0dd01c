-- A file's upload about to begin; nothing is returned if its id was used before, as an
-- upload, a tombstone or a result. Until it is sealed its type tells it from a result's
-- object. Primary keys.
INSERT INTO upload (organisation, id, storage_config, state, type, date_touched)
SELECT $1, $2, $3, 1, '*/*', clock_timestamp()
WHERE NOT EXISTS (SELECT FROM upload WHERE organisation = $1 AND id = $2)
  AND NOT EXISTS (SELECT FROM result WHERE organisation = $1 AND id = $2)
ON CONFLICT DO NOTHING
RETURNING id
