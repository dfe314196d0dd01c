-- Storage configs that are NEW or INVALID and were not probed lately, taken by
-- this replica: others pass them over for a minute. A scan of a table that has few
-- rows per organisation.
UPDATE storage_config c
SET date_probed = now()
WHERE (organisation, id) IN (
    SELECT organisation, id FROM storage_config
    WHERE state IN (1, 3) AND (date_probed IS NULL OR date_probed < now() - make_interval(secs => $1))
      AND date_created < now() - interval '5 seconds'
    LIMIT 100
    FOR UPDATE SKIP LOCKED
)
RETURNING *, false AS is_default
