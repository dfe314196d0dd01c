-- A definition of the organisation or a system-wide one. Index definition_id.
SELECT * FROM definition
WHERE id = $2 AND organisation = ANY(ARRAY[$1, '']) AND NOT deleted
