-- Uploads of owners that have been silent for 5 s. Index file_upload_owner, one
-- walk per silent owner, so that those of living ones cost nothing here.
SELECT u.id
FROM instance i
CROSS JOIN LATERAL (
    SELECT id FROM file_upload WHERE owner = i.id ORDER BY owner, id LIMIT $2
) AS u
WHERE i.id <> $1 AND i.date_seen < clock_timestamp() - interval '5 seconds'
LIMIT $2
