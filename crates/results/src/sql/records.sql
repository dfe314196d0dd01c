-- Records that are AVAILABLE, by their ids: what a walk of `available` found.
-- One round trip, no locks. OFFSET 0 keeps each lookup one by the whole key.
SELECT r.date_created, r.id, r.size, r.block_offset, r.checksum, r.block, r.storage_config,
       r.definition, r.poll, r.task, r.identifier, r.type,
       NULL::timestamptz AS date_consumed, NULL::timestamptz AS date_deleted,
       r.signed_urls_seconds, false AS expired
FROM unnest($2::uuid[]) AS walked(id)
CROSS JOIN LATERAL (
    SELECT * FROM result WHERE organisation = $1 AND id = walked.id OFFSET 0
) AS r
