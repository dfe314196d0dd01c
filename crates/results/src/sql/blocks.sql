-- The blocks that hold some records' data. One round trip, no locks, the
-- primary key.
SELECT id, size, bytes
FROM data_block
WHERE organisation = $1 AND id = ANY($2::uuid[])
