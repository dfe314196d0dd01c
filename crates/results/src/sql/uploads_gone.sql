-- Nothing is left of these; their ids stay used for a day. Primary keys, in their order:
-- other replicas tell the same.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::uuid[], $3::uuid[]) AS asked(organisation, id, storage_config)
    ORDER BY organisation, id, storage_config
)
UPDATE upload u SET state = 4, date_touched = clock_timestamp(), multipart = NULL
FROM given
WHERE u.organisation = given.organisation AND u.id = given.id AND u.storage_config = given.storage_config
  AND u.state = 3
