-- Results of an organisation that are marked and whose objects may still be there,
-- after an id, with the storage config that keeps each. Index expired_pending, and a
-- lookup by primary key each; OFFSET 0 keeps it so on empty tables, too.
SELECT e.id, r.storage_config
FROM (
    SELECT id FROM expired
    WHERE organisation = $1 AND date_deleted IS NULL AND id > $2
    ORDER BY id
    LIMIT 500
) AS e
CROSS JOIN LATERAL (
    SELECT storage_config FROM result WHERE organisation = $1 AND id = e.id OFFSET 0
) AS r
ORDER BY e.id
