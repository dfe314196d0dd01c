-- What the clean-up does not know of yet: the built-in `db` of organisations that have
-- results, and storage configs, which keep nothing that is older than they are (or a day
-- older, by the clock of another server). Returns the moment, and how long ago the one that
-- was looked at longest ago was. A scan of a table that has few rows per organisation, and
-- a descent of the key of `batch` for each.
WITH RECURSIVE its AS (
    (SELECT organisation FROM batch ORDER BY organisation LIMIT 1)
    UNION ALL
    SELECT (SELECT organisation FROM batch WHERE organisation > its.organisation ORDER BY organisation LIMIT 1)
    FROM its
    WHERE its.organisation IS NOT NULL
), added AS (
    INSERT INTO cleanup_progress (organisation, storage_config, date)
    SELECT organisation, id, date_created - interval '1 day' FROM storage_config
    UNION ALL
    SELECT organisation, '00000000-0000-0000-0000-000000000000'::uuid, '-infinity' FROM its
    WHERE organisation IS NOT NULL
    ON CONFLICT DO NOTHING
)
SELECT clock_timestamp() AS now,
       coalesce(extract(epoch FROM clock_timestamp() - min(date_leased)), 0)::float8 AS unseen_seconds
FROM cleanup_progress
WHERE date_leased > '-infinity'
