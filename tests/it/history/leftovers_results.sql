-- States without a result, and the other way round; what is in a state twice; and sealed
-- files (2) that nobody wants.
WITH member AS MATERIALIZED (
    SELECT 'batch' AS kind, organisation, unnest(ids) AS id FROM batch
    UNION ALL SELECT 'available', organisation, unnest(ids) FROM available
    UNION ALL SELECT 'consumed', organisation, unnest(ids) FROM consumed
)
SELECT kind, id::text FROM member LEFT JOIN result r USING (organisation, id) WHERE r.id IS NULL
UNION ALL SELECT 'result', id::text
FROM result LEFT JOIN (SELECT * FROM member WHERE kind = 'batch') AS b USING (organisation, id) WHERE b.id IS NULL
UNION ALL SELECT kind || ' twice', id::text FROM member GROUP BY kind, organisation, id HAVING count(*) > 1
UNION ALL SELECT 'upload', id::text FROM upload WHERE state = 2
