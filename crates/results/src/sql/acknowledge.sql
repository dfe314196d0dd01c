-- Moves AVAILABLE results to CONSUMED, all or none, and returns the ids that were moved,
-- batch by batch. What is expired or consumed already is passed over. A row without ids
-- says that a batch has changed since the statement began: then nothing was done, but the
-- batches are locked as long as the transaction lasts, and the same statement does it now.
--
-- One round trip. Callers name each batch ($3, $4) once, in this order, with those of the
-- ids ($2) that are its own, ascending ($5 to $6, from 1). Rows are locked in the order of
-- their key, so two calls wait for each other in one direction only; and changed by their
-- place, so that the planner has no choice of what to read. A place is that of the version
-- which the statement sees, hence the care for changes. OFFSET 0 keeps the lookups by the
-- whole key, also when the tables have no rows or statistics yet.
WITH found AS MATERIALIZED (
    SELECT asked.date_created, asked.poll, ($2::uuid[])[asked.first:asked.last] AS asked,
           waiting.first_id, waiting.place
    FROM unnest($3::timestamptz[], $4::text[], $5::integer[], $6::integer[])
      AS asked(date_created, poll, first, last)
    CROSS JOIN LATERAL (
        SELECT ctid AS place, first_id FROM available
        WHERE organisation = $1 AND date_created = asked.date_created AND poll = asked.poll
        ORDER BY first_id
        OFFSET 0
    ) AS waiting
), locked AS MATERIALIZED (
    SELECT found.date_created, found.poll, found.asked, found.place, waiting.ids,
           found.place <> waiting.place AS changed
    FROM found
    CROSS JOIN LATERAL (
        SELECT ctid AS place, ids FROM available
        WHERE organisation = $1 AND date_created = found.date_created
          AND poll = found.poll AND first_id = found.first_id
        OFFSET 0
        FOR UPDATE
    ) AS waiting
), settled AS MATERIALIZED (
    SELECT date_created, poll, place,
           CASE WHEN ids = asked THEN ids
                ELSE ARRAY(SELECT unnest(ids) INTERSECT SELECT unnest(asked)) END AS taken,
           CASE WHEN ids = asked THEN '{}'
                ELSE ARRAY(SELECT unnest(ids) EXCEPT SELECT unnest(asked) ORDER BY 1) END AS rest
    FROM locked
    WHERE NOT EXISTS (SELECT FROM locked WHERE changed)
), emptied AS (
    DELETE FROM available USING settled WHERE available.ctid = settled.place AND settled.rest = '{}'
), lessened AS (
    UPDATE available SET ids = settled.rest
    FROM settled
    WHERE available.ctid = settled.place AND settled.rest <> '{}' AND settled.taken <> '{}'
), moved AS (
    INSERT INTO consumed (date_created, date_consumed, organisation, poll, ids)
    SELECT date_created, now(), $1, poll, taken FROM settled WHERE taken <> '{}'
    RETURNING ids
)
SELECT ids FROM moved
UNION ALL
SELECT NULL FROM locked WHERE changed
