-- Removes what is left of definitions that were deleted a day ago, some at a time: all
-- replicas know by then. One that is put again meanwhile stays. A scan, once a minute.
DELETE FROM definition
WHERE deleted AND date_updated < now() - interval '1 day' AND (organisation, path) IN (
    SELECT organisation, path FROM definition
    WHERE deleted AND date_updated < now() - interval '1 day'
    LIMIT 10000
)
