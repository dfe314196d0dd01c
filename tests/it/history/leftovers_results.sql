-- States without a result, and sealed files (2) that nobody wants.
SELECT 'available' AS kind, id::text FROM available a
WHERE NOT EXISTS (SELECT FROM result r WHERE r.organisation = a.organisation AND r.id = a.id)
UNION ALL SELECT 'consumed', id::text FROM consumed c
WHERE NOT EXISTS (SELECT FROM result r WHERE r.organisation = c.organisation AND r.id = c.id)
UNION ALL SELECT 'upload', id::text FROM upload WHERE state = 2
