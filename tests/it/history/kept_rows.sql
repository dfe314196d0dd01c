-- Every result, and in which states it is.
SELECT r.organisation, r.id::text,
       EXISTS (SELECT FROM available a WHERE a.organisation = r.organisation AND a.id = r.id) AS available,
       EXISTS (SELECT FROM consumed c WHERE c.organisation = r.organisation AND c.id = r.id) AS consumed
FROM result r
