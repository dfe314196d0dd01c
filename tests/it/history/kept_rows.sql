-- Every result, and in which states it is.
SELECT organisation, id::text, a.id IS NOT NULL AS available, c.id IS NOT NULL AS consumed
FROM result
LEFT JOIN (SELECT DISTINCT organisation, unnest(ids) AS id FROM available) AS a USING (organisation, id)
LEFT JOIN (SELECT DISTINCT organisation, unnest(ids) AS id FROM consumed) AS c USING (organisation, id)
