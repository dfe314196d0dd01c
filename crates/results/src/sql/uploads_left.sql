-- Uploads that are to be removed, and that nobody writes any more, after a place.
-- Index upload_left, then a sort of what is left over.
SELECT organisation, id, storage_config, multipart
FROM upload
WHERE state = 3 AND state <> 2
  AND (size IS NOT NULL OR date_touched < clock_timestamp() - make_interval(secs => $4))
  AND (organisation, id, storage_config) > ($1, $2, $3)
ORDER BY organisation, id, storage_config
LIMIT 500
