-- The sealed uploads among some ids of organisations. Primary key; OFFSET 0 keeps
-- it so on empty tables, too.
SELECT u.*
FROM unnest($1::text[], $2::uuid[]) AS given(organisation, id)
CROSS JOIN LATERAL (
    SELECT organisation, id, storage_config, size, checksum, type
    FROM upload
    WHERE organisation = given.organisation AND id = given.id AND state = 2
    OFFSET 0
) AS u
