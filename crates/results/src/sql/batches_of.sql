-- Which batch each of some results is in. What is unknown is left out. Primary key, which
-- OFFSET 0 keeps so on empty tables, too. One round trip, no locks.
SELECT given.id, r.date_created, r.poll
FROM unnest($2::uuid[]) AS given(id)
CROSS JOIN LATERAL (
    SELECT date_created, poll FROM result WHERE organisation = $1 AND id = given.id OFFSET 0
) AS r
