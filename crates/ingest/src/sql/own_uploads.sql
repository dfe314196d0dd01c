-- Uploads of this instance that are some seconds old, in order from an id on.
-- Which of them are still under way it knows itself. Index file_upload_owner.
SELECT id FROM file_upload
WHERE owner = $1 AND id > $2 AND date_created < clock_timestamp() - interval '5 seconds'
ORDER BY id LIMIT $3
