-- The definition of exactly this organisation and path. Primary key; the
-- revision's row is locked already, so nobody changes it meanwhile.
SELECT * FROM definition WHERE organisation = $1 AND path = $2 AND NOT deleted
