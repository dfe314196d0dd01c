-- A page of what is available, with its data, after a place. Walks the key of
-- `available` and looks each record up by its key. One round trip, no locks.
SELECT a.date_created, r.id, r.checksum, r.size, r.definition, r.poll, r.task, r.identifier, r.type, r.data
FROM (
    SELECT date_created, id
    FROM available
    WHERE organisation = $1 AND (date_created, id) > ($2, $3)
    ORDER BY date_created, id
    LIMIT $4
) AS a
CROSS JOIN LATERAL (SELECT * FROM result WHERE organisation = $1 AND id = a.id OFFSET 0) AS r
