-- A page of results in any state, newest first. Walks the key of `batch`, at most 10,000
-- ids of it, and looks up each record and what became of it.
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
           c.date_consumed, e.date_deleted, r.signed_urls_seconds, e.first_id IS NOT NULL AS expired
    FROM (
        SELECT b.date_created, member.id
        FROM batch AS b
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
    LEFT JOIN LATERAL (
        SELECT date_consumed FROM consumed
        WHERE organisation = $1 AND date_created = r.date_created AND poll = r.poll AND r.id = ANY(ids)
        OFFSET 0
    ) AS c ON true
    LEFT JOIN LATERAL (
        SELECT first_id, date_deleted FROM expired
        WHERE organisation = $1 AND date_created = r.date_created AND poll = r.poll AND r.id = ANY(ids)
        OFFSET 0
    ) AS e ON true
    WHERE ($7::text IS NULL OR r.task = $7)
      AND ($8::text IS NULL OR r.identifier = $8)
      AND ($9::uuid IS NULL OR r.checksum = $9)
      AND CASE WHEN e.first_id IS NOT NULL THEN $10::boolean
               WHEN c.date_consumed IS NOT NULL THEN $11::boolean
               ELSE $12::boolean END
      AND ($13::timestamptz IS NULL OR c.date_consumed >= $13 AND c.date_consumed < $14)
      AND ($15::timestamptz IS NULL OR e.date_deleted >= $15 AND e.date_deleted < $16)
    ORDER BY walked.date_created DESC, walked.id DESC
    LIMIT $6
)
SELECT * FROM page
UNION ALL
SELECT * FROM (
    SELECT b.date_created, member.id, NULL::bigint, NULL::integer, NULL::uuid, NULL::uuid, NULL::uuid,
           NULL, NULL, NULL, NULL, NULL, NULL::timestamptz, NULL::timestamptz,
           NULL::integer, NULL::boolean
    FROM batch AS b
    CROSS JOIN LATERAL unnest(b.ids) AS member(id)
    WHERE (SELECT count(*) FROM page) < $6
      AND b.organisation = $1
      AND b.date_created >= $2 AND b.date_created <= $4
      AND (b.date_created, member.id) > ($2, $3) AND (b.date_created, member.id) < ($4, $5)
    ORDER BY b.date_created DESC, member.id DESC
    OFFSET 9999 LIMIT 1
) AS scan_end
