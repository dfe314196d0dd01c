-- The blocks that hold some records' data. One round trip, no locks. OFFSET 0
-- keeps each lookup one by the whole primary key: with few blocks at the time
-- the plan is made, reading all of the organisation's looks just as cheap.
SELECT kept.id, kept.size, kept.bytes
FROM unnest($2::uuid[]) AS asked(id)
CROSS JOIN LATERAL (
    SELECT id, size, bytes FROM data_block WHERE organisation = $1 AND id = asked.id OFFSET 0
) AS kept
