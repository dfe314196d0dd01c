-- One record and what became of it. One round trip, no locks, lookups by key; what was
-- acknowledged of its batch is one row for each call, what expired one row in all. OFFSET 0
-- keeps the lookups by the whole key.
SELECT r.date_created, r.id, r.size, r.block_offset, r.checksum, r.block, r.storage_config,
       r.definition, r.poll, r.task, r.identifier, r.type,
       c.date_consumed, e.date_deleted, r.signed_urls_seconds, e.first_id IS NOT NULL AS expired
FROM result AS r
LEFT JOIN LATERAL (
    SELECT date_consumed FROM consumed
    WHERE organisation = $1 AND date_created = r.date_created AND poll = r.poll AND $2 = ANY(ids)
    OFFSET 0
) AS c ON true
LEFT JOIN LATERAL (
    SELECT first_id, date_deleted FROM expired
    WHERE organisation = $1 AND date_created = r.date_created AND poll = r.poll AND $2 = ANY(ids)
    OFFSET 0
) AS e ON true
WHERE r.organisation = $1 AND r.id = $2
