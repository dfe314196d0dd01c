-- How many definitions an organisation has beside the one of a path, and how long
-- their texts are. Primary key; the revision's row is locked already, so nobody
-- adds one meanwhile.
SELECT
    count(*),
    coalesce(sum(octet_length(json_schema) + octet_length(description)
        + octet_length(array_to_string(unique_by, ''))), 0)::bigint AS text_bytes
FROM definition
WHERE organisation = $1 AND path <> $2 AND NOT deleted
