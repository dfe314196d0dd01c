-- An organisation's definitions after a path, in order; with $4 also the
-- system-wide ones it has no own for. Primary key.
SELECT * FROM definition d
WHERE d.organisation = $1 AND d.path > $2 AND NOT d.deleted
UNION ALL
SELECT * FROM definition d
WHERE $4 AND $1 <> '' AND d.organisation = '' AND d.path > $2 AND NOT d.deleted
  AND NOT EXISTS (SELECT FROM definition o
                  WHERE o.organisation = $1 AND o.path = d.path AND NOT o.deleted)
ORDER BY path LIMIT $3
