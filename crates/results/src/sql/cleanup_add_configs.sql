-- Storage configs that the clean-up does not know of yet, which keep nothing that is older than
-- they are (or a day older, by the clock of another server); returns the moment, and how
-- long ago the one that was looked at longest ago was. A scan of two tables that have
-- few rows per organisation.
WITH added AS (
    INSERT INTO cleanup_progress (organisation, storage_config, date)
    SELECT organisation, id, date_created - interval '1 day' FROM storage_config
    ON CONFLICT DO NOTHING
)
SELECT clock_timestamp() AS now,
       coalesce(extract(epoch FROM clock_timestamp() - min(date_leased)), 0)::float8 AS unseen_seconds
FROM cleanup_progress
WHERE date_leased > '-infinity'
