-- How many definitions an organisation has beside the one of a path, and how long
-- their schemas are. Primary key; the revision's row is locked already, so nobody
-- adds one meanwhile.
SELECT count(*), coalesce(sum(octet_length(json_schema)), 0)::bigint AS schema_bytes
FROM definition
WHERE organisation = $1 AND path <> $2 AND NOT deleted
