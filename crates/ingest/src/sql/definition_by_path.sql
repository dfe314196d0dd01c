-- The organisation's own definition of a path, or else the system-wide one.
-- Primary key, two probes.
SELECT * FROM definition
WHERE organisation = ANY(ARRAY[$1, '']) AND path = $2 AND NOT deleted
ORDER BY organisation DESC LIMIT 1
