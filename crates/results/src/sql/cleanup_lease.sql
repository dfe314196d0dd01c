-- Takes the storage config that was looked at longest ago, if that is $2 seconds
-- or more and before $3, and nobody works on it: who took it and has been silent for
-- 30 s is gone.
-- Others that take one at the same moment get another one. Walks index
-- cleanup_progress_by_lease; what it finds is locked once, and changed by primary key.
WITH taken AS MATERIALIZED (
    SELECT organisation, storage_config FROM cleanup_progress
    WHERE date_leased < $3
      AND date_leased <= clock_timestamp()
                         - CASE WHEN lease IS NULL THEN make_interval(secs => $2) ELSE interval '30 seconds' END
    ORDER BY date_leased
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
UPDATE cleanup_progress p
SET lease = $1, date_leased = clock_timestamp()
FROM taken
WHERE p.organisation = taken.organisation AND p.storage_config = taken.storage_config
RETURNING p.organisation, p.storage_config, p.date
