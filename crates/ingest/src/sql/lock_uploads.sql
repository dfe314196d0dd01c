-- Uploads of files that are to be decided, locked in the order of the ids, which
-- come sorted. One that is missing was given up. Primary key; OFFSET 0 keeps it
-- so on empty tables, too.
SELECT u.*
FROM unnest($1::uuid[]) AS given(id)
CROSS JOIN LATERAL (
    SELECT id FROM file_upload WHERE id = given.id OFFSET 0 FOR UPDATE
) AS u
