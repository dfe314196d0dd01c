-- The first chunks of a file that are still there, at most so many. Primary key, in its
-- order; deleted by place.
DELETE FROM file_chunk
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM file_chunk WHERE organisation = $1 AND id = $2 ORDER BY number LIMIT $3
))
