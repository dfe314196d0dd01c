-- Moves AVAILABLE results to CONSUMED and returns the ids that were moved. What
-- is unknown, expired or consumed already is passed over. One round trip.
--
-- Each id is looked up in the primary keys of `result` (for its date) and
-- `available`; OFFSET 0 keeps these lookups by the whole key, also when the
-- tables have no rows or statistics yet. The rows found are deleted by their
-- place (a row here never moves, and none that this statement sees is vacuumed
-- away under it), in the order of their places: so two batches of the same ids
-- lock in the same order. A row that another transaction deletes first is
-- waited for and then no longer there.
WITH moved AS (
    DELETE FROM available
    WHERE ctid = ANY (ARRAY(
        SELECT waiting.place
        FROM unnest($2::uuid[]) AS asked(id)
        CROSS JOIN LATERAL (
            SELECT date_created FROM result WHERE organisation = $1 AND id = asked.id OFFSET 0
        ) AS known
        CROSS JOIN LATERAL (
            SELECT ctid AS place FROM available
            WHERE organisation = $1 AND date_created = known.date_created AND id = asked.id OFFSET 0
        ) AS waiting
    ))
    RETURNING id
)
INSERT INTO consumed (organisation, id, date_consumed)
SELECT $1, id, now() FROM moved
RETURNING id
