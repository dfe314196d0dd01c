-- Leaves a tombstone for the other replicas. Primary key.
UPDATE definition SET deleted = true, revision = $3, date_updated = now()
WHERE organisation = $1 AND path = $2 AND NOT deleted
