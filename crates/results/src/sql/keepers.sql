-- Those of these ids that an object of a storage config ($3) may belong to: a
-- record that it keeps and that has not lost its data, or an upload on its way.
-- Primary keys; OFFSET 0 keeps them so on empty tables, too.
SELECT given.id
FROM unnest($2::uuid[]) AS given(id)
CROSS JOIN LATERAL (
    SELECT date_created, poll, storage_config FROM result WHERE organisation = $1 AND id = given.id OFFSET 0
) AS r
LEFT JOIN LATERAL (
    SELECT date_deleted FROM expired
    WHERE organisation = $1 AND date_created = r.date_created AND poll = r.poll AND given.id = ANY(ids)
    OFFSET 0
) AS e ON true
WHERE r.storage_config = $3 AND e.date_deleted IS NULL
UNION ALL
SELECT given.id
FROM unnest($2::uuid[]) AS given(id)
CROSS JOIN LATERAL (
    SELECT state FROM upload WHERE organisation = $1 AND id = given.id AND storage_config = $3 OFFSET 0
) AS u
WHERE u.state < 4
