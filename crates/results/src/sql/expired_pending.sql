-- Batches of one storage config ($2) that are marked and whose
-- objects may still be there, after a key. Index expired_pending.
SELECT date_created, poll, first_id, ids
FROM expired
WHERE organisation = $1 AND storage_config = $2 AND date_deleted IS NULL
  AND (date_created, poll, first_id) > ($3, $4, $5)
ORDER BY date_created, poll, first_id
LIMIT 100
