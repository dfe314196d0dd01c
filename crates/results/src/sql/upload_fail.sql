-- Whoever wrote an upload has ended without sealing it: what it left can be
-- removed at once. Primary key.
UPDATE upload SET state = 3, date_touched = '-infinity'
WHERE organisation = $1 AND id = $2 AND storage_config = $3 AND state IN (1, 3, 4)
