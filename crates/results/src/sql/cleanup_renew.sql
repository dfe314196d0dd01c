-- Goes on working on a storage config, and keeps how far it came; nothing is
-- returned if somebody else took it. What may still be committed with an earlier
-- `date_created` (a record's transaction takes 10 s at most) is not passed by: no place is
-- kept that is younger than a minute. Primary key.
UPDATE cleanup_progress
SET date_leased = clock_timestamp(),
    date = CASE WHEN $4 < now() - interval '1 minute' THEN $4 ELSE date END
WHERE organisation = $1 AND storage_config = $2 AND lease = $3
RETURNING date
