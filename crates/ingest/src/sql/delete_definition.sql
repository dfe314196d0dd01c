-- Leaves a tombstone for the other replicas, without its texts. Primary key.
UPDATE definition
SET deleted = true, description = '', unique_by = '{}', json_schema = '', revision = $3, date_updated = now()
WHERE organisation = $1 AND path = $2 AND NOT deleted
