-- Batches of one storage config that are marked and whose objects may still be there, after
-- an id. Index expired_pending.
SELECT date_created, poll, first_id, ids
FROM expired
WHERE organisation = $1 AND storage_config = $2 AND date_deleted IS NULL AND first_id > $3
ORDER BY first_id
LIMIT 100
