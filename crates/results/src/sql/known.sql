-- Which of these are recorded. Primary key; OFFSET 0 keeps it so on empty tables,
-- too.
SELECT r.organisation, r.id
FROM unnest($1::text[], $2::uuid[]) AS given(organisation, id)
CROSS JOIN LATERAL (
    SELECT organisation, id FROM result WHERE organisation = given.organisation AND id = given.id OFFSET 0
) AS r
