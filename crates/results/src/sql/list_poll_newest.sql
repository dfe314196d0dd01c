-- A page of one poll's results, newest first. Walks `batch_by_poll`, at most
-- 10,000 ids of it, and looks up the record of each that is asked for.
-- One round trip, no locks.
--
-- The ids of all batches of one moment are put in order, moment by moment, and no
-- more of them than the page needs.
--
-- What became of them is looked up once for all that one commit recorded of one poll,
-- and not for each: where they were acknowledged one by one it is as many rows as there
-- are ids, and to go through all of them for each id takes seconds. What was forgotten
-- may be left in a row of `consumed`, but is no longer in `batch`.
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
           walked.date_consumed, walked.date_deleted, r.signed_urls_seconds, walked.expired
    FROM (
        SELECT b.date_created, member.id, member.date_consumed, member.date_deleted, member.expired
        FROM (
            SELECT DISTINCT ON (date_created, poll) date_created, poll
            FROM batch
            WHERE organisation = $1 AND poll = $17
              AND date_created >= $2 AND date_created <= $4
            ORDER BY date_created DESC, poll DESC
        ) AS b
        CROSS JOIN LATERAL (
            SELECT known.id, bool_or(known.expired) AS expired,
                   max(known.date_consumed) AS date_consumed, max(known.date_deleted) AS date_deleted
            FROM (
                SELECT of.id, true AS recorded, false AS expired,
                       NULL::timestamptz AS date_consumed, NULL::timestamptz AS date_deleted
                FROM (
                    SELECT ids FROM batch
                    WHERE organisation = $1 AND date_created = b.date_created AND poll = b.poll
                    OFFSET 0
                ) AS recorded
                CROSS JOIN LATERAL unnest(recorded.ids) AS of(id)
                UNION ALL
                SELECT of.id, false, false, acknowledged.date_consumed, NULL
                FROM (
                    SELECT date_consumed, ids FROM consumed
                    WHERE organisation = $1 AND date_created = b.date_created AND poll = b.poll
                    OFFSET 0
                ) AS acknowledged
                CROSS JOIN LATERAL unnest(acknowledged.ids) AS of(id)
                UNION ALL
                SELECT of.id, false, true, NULL, gone.date_deleted
                FROM (
                    SELECT date_deleted, ids FROM expired
                    WHERE organisation = $1 AND date_created = b.date_created AND poll = b.poll
                    OFFSET 0
                ) AS gone
                CROSS JOIN LATERAL unnest(gone.ids) AS of(id)
            ) AS known
            GROUP BY known.id
            HAVING bool_or(known.recorded)
        ) AS member
        WHERE (b.date_created, member.id) > ($2, $3) AND (b.date_created, member.id) < ($4, $5)
        ORDER BY b.date_created DESC, member.id DESC
        LIMIT 10000
    ) AS walked
    CROSS JOIN LATERAL (
        SELECT * FROM result WHERE organisation = $1 AND id = walked.id OFFSET 0
    ) AS r
    WHERE CASE WHEN walked.expired THEN $10::boolean
               WHEN walked.date_consumed IS NOT NULL THEN $11::boolean
               ELSE $12::boolean END
      AND ($13::timestamptz IS NULL OR walked.date_consumed >= $13 AND walked.date_consumed < $14)
      AND ($15::timestamptz IS NULL OR walked.date_deleted >= $15 AND walked.date_deleted < $16)
      AND ($7::text IS NULL OR r.task = $7)
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
    FROM batch AS b
    CROSS JOIN LATERAL unnest(b.ids) AS member(id)
    WHERE (SELECT count(*) FROM page) < $6
      AND b.organisation = $1
      AND b.poll = $17
      AND b.date_created >= $2 AND b.date_created <= $4
      AND (b.date_created, member.id) > ($2, $3) AND (b.date_created, member.id) < ($4, $5)
    ORDER BY b.date_created DESC, member.id DESC
    OFFSET 9999 LIMIT 1
) AS scan_end
