-- A page of what is AVAILABLE, newest first, of one task, identifier or checksum
-- (without those: walk_available_newest.sql). Walks the key of `available`, at most 10,000
-- ids of it, and looks each record up.
-- One round trip, no locks.
--
-- The ids of all batches of one moment are put in order, moment by moment, and no
-- more of them than the page needs.
--
-- A scan that found less than was asked for, and did not reach the end, says
-- where it stopped in a last row without a `definition`: the next page begins
-- there. It is in the same statement for the sake of one snapshot.
--
-- OFFSET 0 keeps each lookup one by the whole key: on tables without rows or
-- statistics the planner likes to read all of an organisation's instead, and
-- keeps that plan while they fill.
WITH page AS MATERIALIZED (
    SELECT r.date_created, r.id, r.size, r.block_offset, r.checksum, r.block, r.storage_config,
           r.definition, r.poll, r.task, r.identifier, r.type,
           NULL::timestamptz AS date_consumed, NULL::timestamptz AS date_deleted,
           r.signed_urls_seconds, false AS expired
    FROM (
        SELECT b.date_created, member.id
        FROM available AS b
        CROSS JOIN LATERAL unnest(b.ids) AS member(id)
        WHERE b.organisation = $1
          AND b.date_created >= $2 AND b.date_created <= $4
          AND (b.date_created, member.id) > ($2, $3) AND (b.date_created, member.id) < ($4, $5)
        ORDER BY b.date_created DESC, member.id DESC
        LIMIT 10000
    ) AS walked
    CROSS JOIN LATERAL (
        SELECT * FROM result WHERE organisation = $1 AND id = walked.id OFFSET 0
    ) AS r
    WHERE ($7::text IS NULL OR r.task = $7)
      AND ($8::text IS NULL OR r.identifier = $8)
      AND ($9::uuid IS NULL OR r.checksum = $9)
    ORDER BY walked.date_created DESC, walked.id DESC
    LIMIT $6
)
SELECT * FROM page
UNION ALL
SELECT * FROM (
    SELECT b.date_created, member.id, NULL::bigint, NULL::integer, NULL::uuid, NULL::uuid, NULL::uuid,
           NULL, NULL, NULL, NULL, NULL, NULL::timestamptz, NULL::timestamptz,
           NULL::integer, NULL::boolean
    FROM available AS b
    CROSS JOIN LATERAL unnest(b.ids) AS member(id)
    WHERE (SELECT count(*) FROM page) < $6
      AND b.organisation = $1
      AND b.date_created >= $2 AND b.date_created <= $4
      AND (b.date_created, member.id) > ($2, $3) AND (b.date_created, member.id) < ($4, $5)
    ORDER BY b.date_created DESC, member.id DESC
    OFFSET 9999 LIMIT 1
) AS scan_end
