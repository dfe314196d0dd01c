-- One record and what became of it. One round trip, no locks, the primary keys
-- of one partition each.
SELECT r.date_created, r.id, r.size, r.block_offset, r.checksum, r.block, r.storage_config,
       r.definition, r.poll, r.task, r.identifier, r.type,
       c.date_consumed, e.date_deleted, r.signed_urls_seconds, e.id IS NOT NULL AS expired
FROM result AS r
LEFT JOIN consumed AS c ON c.organisation = $1 AND c.id = $2
LEFT JOIN expired AS e ON e.organisation = $1 AND e.id = $2
WHERE r.organisation = $1 AND r.id = $2
