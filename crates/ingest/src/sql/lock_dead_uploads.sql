-- Uploads that nobody sees to any more: of this instance those in $2, and those
-- of owners that have been silent for 5 s. A row that a gate holds is skipped:
-- it decides. Primary key, and index file_upload_owner, one walk per silent
-- owner.
WITH own AS MATERIALIZED (
    SELECT id, organisation FROM file_upload
    WHERE id = ANY($2::uuid[]) AND owner = $1
    FOR UPDATE SKIP LOCKED
), orphaned AS MATERIALIZED (
    SELECT u.id, u.organisation
    FROM instance i
    CROSS JOIN LATERAL (
        SELECT id, organisation FROM file_upload
        WHERE owner = i.id
        ORDER BY owner, id LIMIT $3
        FOR UPDATE SKIP LOCKED
    ) AS u
    WHERE i.id <> $1 AND i.date_seen < clock_timestamp() - interval '5 seconds'
    LIMIT $3
)
SELECT id, organisation FROM own
UNION ALL
SELECT id, organisation FROM orphaned
