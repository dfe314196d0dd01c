-- Open uploads without a sign of life for $1 seconds: marked to be removed, unless
-- their result was recorded by a second try, which the object then belongs to: then
-- only the row goes. Index upload_left; a record that is just being made holds the
-- row's lock, and is passed over.
WITH idle AS MATERIALIZED (
    SELECT organisation, id, storage_config
    FROM upload
    WHERE state = 1 AND state <> 2 AND date_touched < clock_timestamp() - make_interval(secs => $1)
    ORDER BY date_touched
    LIMIT 500
    FOR UPDATE SKIP LOCKED
), recorded AS MATERIALIZED (
    SELECT i.*
    FROM idle AS i
    CROSS JOIN LATERAL (
        SELECT storage_config FROM result WHERE organisation = i.organisation AND id = i.id OFFSET 0
    ) AS r
    WHERE coalesce(r.storage_config, '00000000-0000-0000-0000-000000000000') = i.storage_config
), settled AS (
    DELETE FROM upload u USING recorded r
    WHERE u.organisation = r.organisation AND u.id = r.id AND u.storage_config = r.storage_config
)
UPDATE upload u SET state = 3
FROM idle i
WHERE u.organisation = i.organisation AND u.id = i.id AND u.storage_config = i.storage_config
  AND NOT EXISTS (SELECT FROM recorded r WHERE r.organisation = i.organisation AND r.id = i.id
                                           AND r.storage_config = i.storage_config)
RETURNING u.id
