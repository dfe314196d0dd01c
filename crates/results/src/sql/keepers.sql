-- Those of these ids that an object of a place ($3, the URL of a storage config) may belong
-- to: a record that is kept there and that has not lost its data, or an upload on its way;
-- of whichever of the organisation's storage configs have that URL, for their keys are the
-- same. Primary keys; OFFSET 0 keeps them so on empty tables, too.
SELECT given.id
FROM unnest($2::uuid[]) AS given(id)
CROSS JOIN LATERAL (
    SELECT date_created, poll, storage_config FROM result WHERE organisation = $1 AND id = given.id OFFSET 0
) AS r
CROSS JOIN LATERAL (
    SELECT url FROM storage_config WHERE organisation = $1 AND id = r.storage_config OFFSET 0
) AS keeper
LEFT JOIN LATERAL (
    SELECT date_deleted FROM expired
    WHERE organisation = $1 AND date_created = r.date_created AND poll = r.poll AND given.id = ANY(ids)
    OFFSET 0
) AS e ON true
WHERE keeper.url = $3 AND e.date_deleted IS NULL
UNION ALL
SELECT given.id
FROM unnest($2::uuid[]) AS given(id)
CROSS JOIN LATERAL (
    SELECT state, storage_config FROM upload WHERE organisation = $1 AND id = given.id OFFSET 0
) AS u
CROSS JOIN LATERAL (
    SELECT url FROM storage_config WHERE organisation = $1 AND id = u.storage_config OFFSET 0
) AS keeper
WHERE keeper.url = $3 AND u.state < 4
